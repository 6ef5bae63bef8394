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
// The gallery: a picture opens in a dialog, and the others follow from there.
const pictures = [...document.querySelectorAll(".open")];
if (pictures.length) {
  const view = makeViewer(() => pictures, (content, button) => { content.innerHTML = button.innerHTML; });
  for (const button of pictures) button.addEventListener("click", () => view(button));
}
