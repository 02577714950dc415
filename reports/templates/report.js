"use strict";
(() => {
  // Columns sort on a click of their heading; bodies (trials, missing rows, floors) stay apart.
  const keyOf = (cell) => {
    if (!cell) return null;
    if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
    const text = cell.textContent.trim();
    return cell.classList.contains("number") ? null : text.toLowerCase();
  };
  const columnsOf = (head) => {
    const taken = [], places = new Map();
    [...head.rows].forEach((row, y) => {
      let x = 0;
      for (const cell of row.cells) {
        while (taken[y] && taken[y][x]) x += 1;
        for (let dy = 0; dy < cell.rowSpan; dy += 1) {
          taken[y + dy] = taken[y + dy] || [];
          for (let dx = 0; dx < cell.colSpan; dx += 1) taken[y + dy][x + dx] = true;
        }
        if (cell.scope === "col") places.set(cell, x);
        x += cell.colSpan;
      }
    });
    return places;
  };
  const compare = (a, b, sign) => {
    if (a === b) return 0;
    if (a === null) return 1;
    if (b === null) return -1;
    return (a < b ? -1 : 1) * sign;
  };
  for (const table of document.querySelectorAll("figure.table table, table.sortable")) {
    const places = columnsOf(table.tHead);
    for (const [heading, index] of places) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const falling = heading.getAttribute("aria-sort") === "ascending";
        for (const other of places.keys()) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
        for (const body of table.tBodies) {
          const rows = [...body.rows].map((row) => [keyOf(row.cells[index]), row]);
          rows.sort((a, b) => compare(a[0], b[0], falling ? -1 : 1));
          body.append(...rows.map(([, row]) => row));
        }
      });
    }
  }

  const filter = document.getElementById("filter");
  if (filter) {
    const examples = [...document.querySelectorAll(".example")];
    const texts = examples.map((example) => example.textContent.toLowerCase());
    const count = document.getElementById("filter-count");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      examples.forEach((example, index) => {
        example.hidden = !words.every((word) => texts[index].includes(word));
        shown += example.hidden ? 0 : 1;
      });
      count.textContent = words.length ? `${shown} of ${examples.length}` : "";
    });
  }
})();
