"use strict";

// Light, dark, or what the system says.
const look = document.getElementById("look");
look?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.look ? root.dataset.look === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.look = dark ? "light" : "dark";
});

// Tables sort by the column whose head is pressed; empty cells stay at the end either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const words = head.dataset.kind === "words";
      const first = words ? "ascending" : "descending";
      const other = words ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      table.querySelectorAll("thead th").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.order ?? row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (words) return sign * x.localeCompare(y);
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (Number(x) - Number(y));
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}

// Filters of a table: words in the name, and a group.
for (const tools of document.querySelectorAll("[data-filters]")) {
  const table = document.getElementById(tools.dataset.filters);
  const words = tools.querySelector("input");
  const group = tools.querySelector("select");
  const known = tools.querySelector("input[type=checkbox]");
  const told = tools.querySelector("output");
  const apply = () => {
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const groups = (row.dataset.groups ?? "").split(" ");
      const fits = row.cells[0].textContent.toLowerCase().includes(words.value.trim().toLowerCase())
        && (!group || !group.value || groups.includes(group.value))
        && !(known?.checked && "empty" in row.dataset);
      row.hidden = !fits;
      shown += fits;
    }
    told.textContent = `${shown} of ${table.tBodies[0].rows.length} classes`;
  };
  words.addEventListener("input", apply);
  group?.addEventListener("change", apply);
  known?.addEventListener("change", apply);
  apply();
}

// The curve of one class, over the means.
const curves = JSON.parse(document.getElementById("class-curves")?.textContent ?? "[]");
const chosen = document.getElementById("chosen-curve");
const picker = document.getElementById("curve-picker");
if (picker && chosen) {
  const [left, top, right, bottom] = chosen.dataset.frame.split(" ").map(Number);
  const draw = (index) => {
    const points = curves[index]?.points ?? "";
    const count = points.length / 2 - 1;
    const places = [];
    for (let i = 0; i <= count; i += 1) {
      const precision = parseInt(points.slice(2 * i, 2 * i + 2), 16) / 200;
      places.push(`${left + (right - left) * i / count},${bottom - (bottom - top) * precision}`);
    }
    chosen.setAttribute("points", places.join(" "));
  };
  picker.append(...curves.map((curve, i) => new Option(curve.name, String(i))));
  picker.addEventListener("change", () => draw(picker.value));
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
    button.textContent = "Copied";
  });
}

// On paper everything is open.
let shut = [];
addEventListener("beforeprint", () => {
  shut = [...document.querySelectorAll("details:not([open])")];
  shut.forEach((part) => { part.open = true; });
});
addEventListener("afterprint", () => shut.forEach((part) => { part.open = false; }));
