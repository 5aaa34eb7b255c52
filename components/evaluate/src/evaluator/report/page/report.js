"use strict";
// One clip at a time: `play` does not bubble, so it is caught on its way down.
document.addEventListener("play", (event) => {
  for (const other of document.querySelectorAll("audio")) {
    if (other !== event.target) other.pause();
  }
}, true);

function sortKey(row, column, isNumber) {
  const cell = row.cells[column];
  const text = cell.dataset.key ?? cell.textContent.trim();
  return isNumber ? parseFloat(text) : text;
}

function sortBy(table, header, isNumber) {
  const column = header.cellIndex;
  const rising = header.getAttribute("aria-sort") !== "ascending";
  const sign = rising ? 1 : -1;
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row) => [sortKey(row, column, isNumber), row]);
  keyed.sort(([a], [b]) => {
    if (!isNumber) return sign * a.localeCompare(b, undefined, { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  });
  body.append(...keyed.map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length < 2) continue;
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    const isNumber = header.dataset.sort === "number";
    button.addEventListener("click", () => sortBy(table, header, isNumber));
  }
}
