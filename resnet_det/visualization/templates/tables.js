"use strict";
// Tables sort by the column whose button is pressed; numbers by the value in data-value.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const falling = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = row => {
      const cell = row.children[column];
      return cell.dataset.value === undefined ? cell.textContent.trim() : parseFloat(cell.dataset.value);
    };
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (typeof x === "string") return x.localeCompare(y);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);  // what is not known stands last
      return falling ? y - x : x - y;
    };
    const rows = [...body.rows].sort(compare);
    if (falling && rows.length && typeof value(rows[0]) === "string") rows.reverse();
    body.append(...rows);
  });
}
