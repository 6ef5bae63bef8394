// The dialog of viewer.html, in which the entries of a page are looked at one after the other. entries() gives those to
// go through; fill(content, entry) puts one into the dialog. Returned is what opens it.
const makeViewer = (entries, fill) => {
  const dialog = document.querySelector("dialog"), content = dialog.querySelector(".content");
  let current = null;
  const show = entry => { current = entry; fill(content, entry); };
  const step = by => {
    const all = entries();
    show(all[(all.indexOf(current) + by + all.length) % all.length]);
  };
  dialog.querySelector(".previous").addEventListener("click", () => step(-1));
  dialog.querySelector(".next").addEventListener("click", () => step(1));
  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("close", () => content.replaceChildren());  // a video stops
  return entry => { show(entry); dialog.showModal(); };
};
