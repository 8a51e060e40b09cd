"use strict";
// Charts of values over steps, drawn by uPlot. Each chart: { title, series: [{ name, steps, values }] }.
// A series may have a colour and a dash of its own, as numbers from 0; dash 0 is a whole line.
// A chart takes the keyboard: arrows move along the steps, and its legend says the values there.
// One element a page; called again, it draws anew and leaves nothing of the charts before.
const sincutCurves = (() => {
  const shades = matchMedia("(prefers-color-scheme: dark)");
  const light = ["#0a58ca", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0f766e"];
  const dark = ["#8ab4f8", "#fb923c", "#4ade80", "#d8b4fe", "#facc15", "#5eead4"];
  const dashes = [undefined, [6, 3], [2, 3], [12, 3, 2, 3]];
  let plots = [];

  // One list of steps, and per series its value there or null.
  const aligned = (series) => {
    const steps = [...new Set(series.flatMap((each) => each.steps))].sort((a, b) => a - b);
    return [steps, ...series.map((each) => {
      const known = new Map(each.steps.map((step, index) => [step, each.values[index]]));
      return steps.map((step) => known.has(step) ? known.get(step) : null);
    })];
  };
  const short = (value) => value === null || value === undefined ? "–" : String(+value.toPrecision(4));

  const draw = (holder, chart) => {
    const colours = shades.matches ? dark : light;
    const style = getComputedStyle(document.documentElement);
    const axis = {
      stroke: style.getPropertyValue("--soft").trim(),
      grid: { stroke: style.getPropertyValue("--line").trim(), width: 0.5 },
      ticks: { stroke: style.getPropertyValue("--line").trim(), width: 0.5 },
    };
    return new uPlot({
      width: Math.max(holder.clientWidth, 200),
      height: 220,
      scales: { x: { time: false } },
      axes: [{ ...axis, size: 34 }, { ...axis, size: 60, values: (_, ticks) => ticks.map(short) }],
      cursor: { drag: { x: true, y: false } },
      series: [
        { label: "step", value: (_, value) => short(value) },
        ...chart.series.map((each, index) => ({
          label: each.name,
          stroke: colours[(each.colour ?? index) % colours.length],
          width: 1.5,
          dash: dashes[(each.dash ?? index % 2) % dashes.length], // told apart without colours too
          spanGaps: true,
          points: { show: each.values.length < 40, size: 4 },
          value: (_, value) => short(value),
        })),
      ],
    }, aligned(chart.series), holder);
  };

  const add = (root, chart) => {
    const figure = document.createElement("figure");
    figure.className = "curve";
    const title = document.createElement("figcaption");
    title.textContent = chart.title;
    const holder = document.createElement("div");
    holder.className = "plot";
    holder.tabIndex = 0;
    holder.setAttribute("role", "img");
    holder.setAttribute("aria-label", `${chart.title}. ` + chart.series.map((each) =>
      `${each.name}: ${short(each.values[0])} at step ${each.steps[0]}, ` +
      `${short(each.values.at(-1))} at step ${each.steps.at(-1)}`).join("; "));
    const said = document.createElement("output");
    said.className = "soft";
    figure.append(title, holder, said);
    root.append(figure);
    const entry = { holder, chart, plot: draw(holder, chart), at: null };
    plots.push(entry);
    sizes.observe(holder);
    holder.addEventListener("keydown", (event) => {
      const [steps] = entry.plot.data;
      const last = steps.length - 1;
      const wanted = {
        ArrowLeft: Math.max((entry.at ?? last + 1) - 1, 0),
        ArrowRight: Math.min((entry.at ?? -1) + 1, last), Home: 0, End: last,
      }[event.key];
      if (wanted === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      entry.at = wanted;
      entry.plot.setCursor({ left: entry.plot.valToPos(steps[wanted], "x"), top: 10 });
      said.textContent = `step ${steps[wanted]}: ` + chart.series.map((each, index) =>
        `${each.name} ${short(entry.plot.data[index + 1][wanted])}`).join(", ");
    });
  };

  shades.addEventListener("change", () => plots.forEach((entry) => {
    entry.plot.destroy();
    entry.plot = draw(entry.holder, entry.chart);
  }));
  const sizes = new ResizeObserver((changes) => changes.forEach((change) => {
    const entry = plots.find((each) => each.holder === change.target);
    const width = Math.max(change.contentRect.width, 200);
    if (entry && Math.abs(entry.plot.width - width) > 1) entry.plot.setSize({ width, height: 220 });
  }));

  return (root, charts) => {
    sizes.disconnect();
    plots.forEach((entry) => entry.plot.destroy());
    plots = [];
    root.replaceChildren();
    charts.forEach((chart) => add(root, chart));
  };
})();
