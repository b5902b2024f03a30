"use strict";
const value = (text) => {
  const number = Number(text.replace(/[\s%]/g, "").replace("−", "-"));
  return text.trim() === "" ? -Infinity : Number.isNaN(number) ? text : number;
};
const compare = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
for (const table of document.querySelectorAll("table.layers")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => [value(row.cells[column].textContent), row]);
      keyed.sort((a, b) => (down ? compare(b[0], a[0]) : compare(a[0], b[0])));
      body.append(...keyed.map(([, row]) => row));
    });
  });
  table.parentElement.previousElementSibling.querySelector("input").addEventListener("input", (event) => {
    for (const row of body.rows) row.hidden = !row.cells[0].textContent.includes(event.target.value);
  });
}
