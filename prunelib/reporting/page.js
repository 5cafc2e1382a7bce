// Sorts and filters the tables of results, and shows the mark of the row under the pointer. Without it, all is there.
const control = (name, ...children) => { const made = document.createElement(name); made.append(...children); return made; };
const number = cell => { const value = parseFloat(cell.textContent); return isNaN(value) ? Infinity : value; };
const text = cell => cell.textContent.trim();

for (const table of document.querySelectorAll(".results")) {
  const heads = [...table.tHead.rows[0].cells], bodies = [...table.tBodies].filter(body => body.querySelector(".pattern"));
  const rows = bodies.flatMap(body => [...body.rows].filter(row => row.id));

  heads.forEach((head, at) => {
    const button = control("button", ...head.childNodes);
    button.onclick = () => {
      const direction = head.ariaSort === "ascending" ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      const order = (one, other) => at < 2 ? text(one.cells[at]).localeCompare(text(other.cells[at]))
        : number(one.cells[at]) - number(other.cells[at]) || 0;
      for (const body of bodies) body.append(...[...body.rows].filter(row => row.id).sort((a, b) => direction * order(a, b)));
    };
    head.append(button);
  });

  const sides = {
    "Pattern": row => text(row.parentNode.querySelector(".pattern")),
    "Warm start": row => text(row.cells[0]),
    "Refiner": row => text(row.cells[1]),
  };
  const selects = Object.entries(sides).map(([name, side]) => {
    const options = ["all", ...new Set(rows.map(side))].map(value => control("option", value));
    return [control("label", name + " ", control("select", ...options)), side];
  });
  const filters = control("form", ...selects.map(([label]) => label));
  filters.className = "filters";
  filters.onchange = () => {
    for (const row of rows) row.hidden = !selects.every(([label, side]) => [side(row), "all"].includes(label.lastChild.value));
    for (const body of bodies) body.hidden = [...body.rows].every(row => row.hidden || !row.id);
  };
  table.parentNode.before(filters);

  for (const kind of ["mouseover", "mouseout"]) table.addEventListener(kind, event => {
    document.getElementById("costs-" + event.target.closest("tr")?.id)?.classList.toggle("lit", kind === "mouseover");
  });
}
