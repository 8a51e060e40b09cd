"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  sincutCurves(byId("curves"), JSON.parse(byId("charts").textContent));

  const when = byId("when");
  when?.addEventListener("input", () => {
    const figures = [...byId("previews").children];
    figures.forEach((figure, index) => { figure.hidden = index !== +when.value; });
    const words = `after ${figures[+when.value].dataset.step} steps`;
    byId("when-text").textContent = words;
    when.setAttribute("aria-valuetext", words);
  });
})();
