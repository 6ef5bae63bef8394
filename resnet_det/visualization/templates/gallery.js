"use strict";
const list = document.querySelector(".entries"), entries = [...list.children], dialog = document.querySelector("dialog");
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
let current = null;
const show = entry => {
  current = entry;
  const view = document.createElement("video" in entry.dataset ? "video" : "img");
  view.src = entry.href;
  view.controls = true;
  if (view.tagName === "IMG") view.alt = entry.querySelector("b").textContent;
  dialog.querySelector(".view").replaceChildren(view);
  dialog.querySelector(".file").href = entry.href;
  dialog.querySelector(".what").textContent = entry.querySelector("figcaption").innerText.replaceAll("\n", " ");
};
const step = by => {
  const shown = entries.filter(entry => !entry.hidden);
  show(shown[(shown.indexOf(current) + by + shown.length) % shown.length]);
};
for (const entry of entries) {
  entry.addEventListener("click", event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;  // to open it elsewhere
    event.preventDefault();
    show(entry);
    dialog.showModal();
  });
}
dialog.querySelector(".previous").addEventListener("click", () => step(-1));
dialog.querySelector(".next").addEventListener("click", () => step(1));
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => dialog.querySelector(".view").replaceChildren());
dialog.addEventListener("keydown", event => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
arrange();
