// The lines of a class stand out when pointed at or tapped, or when the class is chosen in the table.
for (const section of document.querySelectorAll("section[data-task]")) {
  const labels = JSON.parse(section.querySelector("script[type='application/json']").textContent);
  const pick = place => {
    for (const line of section.querySelectorAll(".picked")) line.classList.remove("picked");
    for (const kind of ["pr", "f1"]) {
      const name = `${kind}-${section.dataset.task}-${place}`, line = document.getElementById(name);
      const caption = section.querySelector(`.caption[data-kind="${kind}"]`);
      caption.textContent = line ? labels[name] : "";
      if (line) { line.classList.add("picked"); line.parentNode.append(line); }
    }
  };
  for (const name of Object.keys(labels)) {
    const line = document.getElementById(name);
    for (const event of ["pointerenter", "click"]) line?.addEventListener(event, () => pick(name.split("-").at(-1)));
  }
  for (const button of section.querySelectorAll("td button")) {
    button.addEventListener("click", () => {
      pick(button.dataset.place);
      section.querySelector(".caption").scrollIntoView({behavior: "smooth", block: "center"});
    });
  }
}
// Names of shapes: of one size on the screen however large the picture is, within it, and below one another.
const NAME_PX = 13;
const placeNames = svg => {
  const {width, height} = svg.viewBox.baseVal, unit = width / svg.clientWidth, line = NAME_PX * unit, placed = [];
  if (!svg.clientWidth) return;
  for (const name of svg.querySelectorAll(".name")) {
    name.style.fontSize = `${line}px`;
    name.style.strokeWidth = `${3 * unit}px`;
    const left = name.x.baseVal[0].value, base = name.y.baseVal[0].value, long = name.getComputedTextLength();
    const x = Math.max(2 * unit, Math.min(left, width - long - 2 * unit));
    let y = Math.max(line, base);
    const covers = other => x < other.x + other.long && other.x < x + long && Math.abs(y - other.y) < line;
    while (y < height && placed.some(covers)) y += line / 4;
    name.setAttribute("transform", `translate(${x - left} ${y - base})`);
    placed.push({x, y, long});
  }
};
const sizes = new ResizeObserver(entries => { for (const entry of entries) placeNames(entry.target); });
// The gallery: a picture opens in a dialog, and the others follow from there.
const pictures = [...document.querySelectorAll(".open")];
if (pictures.length) {
  const view = makeViewer(() => pictures, (content, button) => {
    content.innerHTML = button.innerHTML;
    sizes.disconnect();
    for (const svg of content.querySelectorAll("svg")) sizes.observe(svg);
  });
  for (const button of pictures) button.addEventListener("click", () => view(button));
}
