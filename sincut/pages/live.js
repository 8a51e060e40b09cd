"use strict";
// Shows what `live.js` beside the page says, and loads it again until the run is finished.
// The page keeps what its reader is at: the preview chosen, the curve looked at, the focus.
(() => {
  const byId = (id) => document.getElementById(id);
  const source = JSON.parse(byId("source").textContent);
  const scrubber = byId("scrubber");
  const curves = byId("curves");
  let known = null; // what was said last
  let loads = 0;
  let chosen = null; // step of the preview to stay at; null: the newest
  let wanted = ""; // address of the preview to show
  let waiting = null; // charts that have not been drawn yet

  // State and numbers. Texts are set as text: names of files come from outside.
  const say = (words) => {
    if (byId("state").textContent !== words) byId("state").textContent = words;
  };
  const tell = (data) => {
    const old = Date.now() / 1000 - data.written;
    const quiet = data.patience !== null && old > data.patience;
    say(quiet ? `No news since ${new Date(1000 * data.written).toLocaleString()}. See whether ` +
      "the training still runs; if so, it is slow, and must be left alone. Only if it was killed:"
      : data.said);
    byId("resume").hidden = !quiet && (data.running || data.state === "finished");
  };
  const show = (data) => {
    byId("progress").max = Math.max(data.of, 1);
    byId("progress").value = data.done;
    byId("facts").replaceChildren(...data.facts.map(([name, value]) => {
      const group = document.createElement("div");
      const term = document.createElement("dt");
      const words = document.createElement("dd");
      term.textContent = name;
      words.textContent = value;
      group.append(term, words);
      return group;
    }));
    byId("report").hidden = !data.report;
    if (data.report) byId("report").firstChild.href = encodeURI(data.report);
    byId("live").hidden = false;
  };

  // The preview: decoded before it takes the place of the last one, so that nothing flickers.
  const showPreview = () => {
    const last = known.previews.length - 1;
    byId("pictures").hidden = last < 0;
    byId("none").hidden = last >= 0;
    if (last < 0) return;
    const found = known.previews.findIndex(([step]) => step === chosen);
    const index = found < 0 ? last : found;
    const [step, path] = known.previews[index];
    scrubber.max = last;
    scrubber.value = index;
    scrubber.setAttribute("aria-valuetext", `step ${step}`);
    byId("shown").textContent = `${step} (${index + 1} of ${last + 1})`;
    byId("newest").disabled = found < 0;
    const address = `${path}?${known.session}`; // a run that starts anew has the same names
    if (wanted === address) return;
    wanted = address;
    const next = new Image();
    next.id = "preview";
    next.alt = `The content translated after ${step} steps`;
    next.src = address;
    const place = () => { if (wanted === address) byId("preview").replaceWith(next); };
    next.decode().then(place, place);
  };
  scrubber.addEventListener("input", () => {
    const at = +scrubber.value;
    chosen = at === known.previews.length - 1 ? null : known.previews[at][0];
    showPreview();
  });
  byId("newest").addEventListener("click", () => {
    chosen = null;
    showPreview();
    scrubber.focus(); // the button has just been switched off
  });

  // The curves: drawn anew, so not under a pointer or the keyboard.
  const onCurves = () => curves.contains(document.activeElement) ||
    (matchMedia("(hover: hover)").matches && curves.matches(":hover"));
  const drawCurves = () => {
    const held = waiting !== null && onCurves();
    byId("waiting").classList.toggle("now", held);
    if (waiting === null || held) return;
    curves.style.minHeight = `${curves.offsetHeight}px`; // the page keeps its place
    sincutCurves(curves, waiting);
    curves.style.minHeight = "";
    waiting = null;
  };
  const later = () => setTimeout(drawCurves);
  curves.addEventListener("pointerleave", later);
  curves.addEventListener("focusout", later);

  window.sincutLive = (data) => {
    // Begun anew or gone on with: settings and commands of the page itself have changed, too.
    if (known && known.session !== data.session) return location.reload();
    tell(data);
    const before = known;
    known = data;
    if (before && before.written === data.written && before.state === data.state) return;
    show(data);
    showPreview();
    if (JSON.stringify(before && before.charts) !== JSON.stringify(data.charts)) {
      waiting = data.charts;
    }
    drawCurves();
  };
  const load = () => {
    const script = document.createElement("script");
    script.src = `${source}?${loads += 1}`;
    const done = () => {
      script.remove();
      if (known && known.state === "finished") return;
      const every = !known ? 2 : known.running ? known.every : 10; // it may go on one day
      setTimeout(load, 1000 * Math.min(Math.max(every, 2), 10));
    };
    script.onload = done;
    script.onerror = () => {
      say(`${source} is not beside this page; it is written when a training starts`);
      done();
    };
    document.head.append(script);
  };
  load();
})();
