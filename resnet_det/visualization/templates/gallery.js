const list = document.querySelector(".entries"), entries = [...list.children];
const wanted = document.getElementById("class"), order = document.getElementById("order");
const number = (entry, key) => entry.dataset[key] === "" ? NaN : parseFloat(entry.dataset[key]);
const orders = {
  place: ["place", 1], many: ["count", -1], few: ["count", 1], sure: ["score", -1], unsure: ["score", 1],
};
const arrange = () => {
  const [key, sign] = orders[order.value];
  const compare = (a, b) => {
    const [x, y] = [number(a, key), number(b, key)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);  // without a score: last
    return sign * (x - y) || number(a, "place") - number(b, "place");
  };
  list.append(...entries.sort(compare));
  for (const entry of entries) {
    entry.hidden = Boolean(wanted?.value) && !JSON.parse(entry.dataset.classes).includes(wanted.value);
  }
  document.getElementById("shown").textContent =
    `${entries.filter(entry => !entry.hidden).length} of ${entries.length} shown`;
};
wanted?.addEventListener("change", arrange);
order.addEventListener("change", arrange);
const fill = (content, entry) => {
  const picture = document.createElement("video" in entry.dataset ? "video" : "img");
  picture.src = entry.href;
  if (picture.tagName === "VIDEO") picture.controls = true;
  else picture.alt = entry.querySelector("b").textContent;
  const file = Object.assign(document.createElement("a"), {href: entry.href, textContent: "open the file"});
  const what = Object.assign(document.createElement("p"), {className: "what soft"});
  what.append(entry.querySelector("figcaption").innerText.replace("\n", ": ").replaceAll("\n", " "), " · ", file);
  content.replaceChildren(picture, what);
};
const view = makeViewer(() => entries.filter(entry => !entry.hidden), fill);
for (const entry of entries) {
  entry.addEventListener("click", event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;  // to open it elsewhere
    event.preventDefault();
    view(entry);
  });
}
arrange();
