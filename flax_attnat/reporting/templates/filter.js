"use strict";
(() => {
  const form = document.getElementById("filter");
  const rows = [...document.querySelectorAll("section.sentence")].map((element) => {
    const words = element.querySelectorAll(".query i, .technique[data-first] .attention :is(i, u)");
    return {
      element,
      text: [...words].map((word) => word.textContent).join(" ").toLowerCase(),
      label: element.dataset.label,
      columns: [...element.querySelectorAll("[data-technique]")],
    };
  });
  const field = (name) => form.elements.namedItem(name).value;
  const apply = () => {
    const words = field("text").toLowerCase().split(/\s+/).filter(Boolean);
    const [label, technique, error] = [field("label"), field("technique"), field("error")];
    let shown = 0;
    for (const row of rows) {
      let right = 0;
      let wrong = 0;
      for (const column of row.columns) {
        column.hidden = technique !== "" && column.dataset.technique !== technique;
        if (!column.hidden) {
          if (column.dataset.right === "false") wrong += 1;
          else right += 1;
        }
      }
      const fits = words.every((word) => row.text.includes(word))
        && (label === "" || row.label === label)
        && right + wrong > 0
        && (error === "" || (error === "wrong" ? wrong > 0 : wrong === 0));
      row.element.hidden = !fits;
      if (fits) shown += 1;
    }
    document.getElementById("shown").textContent = `${shown} of ${rows.length} texts`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
})();
