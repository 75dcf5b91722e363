"use strict";

(() => {
  document.documentElement.classList.add("script");

  // Sort: numbers start with the highest, words with the first; what has no number stays at the end.
  // Rows of one group stay together, and the title of a group on top.

  function compared(a, b, column, sign) {
    const [x, y] = [a.cells[column], b.cells[column]];
    if (x.dataset.value === undefined) {
      return sign * x.textContent.localeCompare(y.textContent, "en", { numeric: true });
    }
    if (x.dataset.value === "" || y.dataset.value === "") {
      return (x.dataset.value === "") - (y.dataset.value === "");
    }
    return sign * (Number(x.dataset.value) - Number(y.dataset.value));
  }

  function sort(table, head) {
    const before = head.getAttribute("aria-sort");
    const first = head.classList.contains("words") ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = before === first ? other : first;
    for (const th of table.tHead.rows[0].cells) th.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      rows.sort((a, b) => compared(a, b, head.cellIndex, order === "ascending" ? 1 : -1));
      body.append(...rows);
    }
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const head of table.tHead.rows[0].cells) {
      head.querySelector("button").addEventListener("click", () => sort(table, head));
    }
  }

  // Find: rows whose head holds the text.

  for (const field of document.querySelectorAll("input[data-filters]")) {
    const name = field.dataset.filters;
    const count = document.querySelector(`[data-counts="${name}"]`);
    const filter = () => {
      const wanted = field.value.trim().toLowerCase();
      const rows = [...document.getElementById(name).tBodies[0].rows];
      for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
    };
    field.addEventListener("input", filter);
    filter();
  }

  // Maps: the one that was chosen. A gene that was not kept in a section gives way to one that was.

  const [sections, genes] = document.querySelectorAll("select[data-chooses]");
  const maps = [...document.querySelectorAll(".map")];
  const slides = [...document.querySelectorAll(".slide")];

  function choose() {
    const there = maps.filter((map) => map.dataset.section === sections.value).map((map) => map.dataset.gene);
    for (const option of genes.options) option.disabled = !there.includes(option.value);
    if (!there.includes(genes.value)) genes.value = there[0];
    for (const slide of slides) slide.hidden = slide.dataset.section !== sections.value;
    for (const map of maps) {
      map.hidden = map.dataset.section !== sections.value || map.dataset.gene !== genes.value;
    }
  }

  if (maps.length) {
    for (const list of [sections, genes]) list.addEventListener("change", choose);
    choose();
  }
})();
