"use strict";
// A new run: two images, a length, two sliders, the fields of the configuration.
(() => {
  const { say, tell, ask, doing, element, bytes, duration, path, byId } = sincutApp;
  const form = byId("new");
  const places = {};

  const strokeValue = () => Math.round(2 ** +byId("stroke").value * 1000) / 1000;
  const showSliders = () => {
    byId("look-sets").textContent = `--look ${+byId("look").value}`;
    byId("stroke-sets").textContent = `--stroke ${strokeValue()}`;
    byId("look").setAttribute("aria-valuetext", byId("look").value);
    byId("stroke").setAttribute("aria-valuetext", String(strokeValue()));
  };
  const changed = () => {
    const ready = Boolean(places.content?.id() && places.style?.id());
    byId("start").disabled = byId("estimate").disabled = !ready;
    const folders = Boolean(places.content?.look()?.count);
    form.querySelectorAll("[data-of-pair]").forEach((each) => { each.hidden = folders; });
    byId("title").placeholder = ready ? ["content", "style"].map((role) =>
      places[role].look().name.replace(/\.[^.]*$/, "")).join(" + ") : "";
  };
  ["content", "style"].forEach((role) => { places[role] = sincutDrop(byId(role), changed); });
  // Pasted beside both places, an image goes to the first that is empty.
  addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files][0];
    if (!file || event.defaultPrevented) return;
    places[places.content.id() ? "style" : "content"].takeFile(file);
  });

  const chosen = () => {
    const pair = !places.content.look().count;
    const settings = {};
    byId("advanced").querySelectorAll("[name]").forEach((each) => {
      if (each.value !== "") settings[each.name] = each.value;
    });
    const preset = byId("preset").value;
    return {
      content: places.content.id(),
      style: places.style.id(),
      title: byId("title").value,
      minutes: form.elements.minutes.value,
      preset: pair && preset !== "draft" ? preset : "",
      method: byId("method").value,
      seed: byId("seed").value,
      variations: byId("variations").checked,
      settings,
      // At their defaults they are not said: presets without a painting have no use for them.
      ...(pair && +byId("look").value !== 0.5 ? { look: byId("look").value } : {}),
      ...(pair && strokeValue() !== 1 ? { stroke: String(strokeValue()) } : {}),
    };
  };

  // The example pair, or the images of another run.
  const taking = (address, words) => doing(async () => {
    byId("estimated").textContent = say(words);
    const ids = await ask("POST", address).finally(() => {
      byId("estimated").textContent = say("about_estimate");
    });
    await Promise.all(["content", "style"].map((role) => places[role].take(ids[role], say(role))));
  });
  const example = taking("/api/example", "preparing_example");
  const from = new URLSearchParams(location.search).get("from");
  byId("example").addEventListener("click", example);
  if (form.dataset.example) example();
  else if (from) taking(`/api/runs/${path(from)}/images`, "about_estimate")();
  byId("swap").addEventListener("click", doing(async () => {
    const [content, style] = [places.content, places.style].map((each) => each.id());
    const names = [places.content, places.style].map((each) => each.look()?.name);
    if (!content || !style) throw new Error(say("nothing_chosen"));
    await Promise.all([places.content.take(style, names[1]), places.style.take(content, names[0])]);
  }));
  ["look", "stroke"].forEach((name) => byId(name).addEventListener("input", showSliders));
  showSliders();

  byId("estimate").addEventListener("click", doing(async () => {
    byId("estimated").textContent = say("estimating");
    try {
      const asked = chosen();
      const found = await ask("POST", "/api/estimate", asked);
      const step = found.seconds_per_step;
      const of = [step < 1 ? `${Math.round(1000 * step)} ms` : `${step.toPrecision(2)} s`,
        bytes(found.peak_bytes), `${found.device}, ${found.precision}`];
      byId("estimated").replaceChildren(
        asked.minutes ? say("estimated", found.steps, duration(found.seconds), ...of)
          : say("estimated_open", ...of),
        asked.variations ? " × 3" : "",
        element("ul", {}, ...found.notices.map((each) => element("li", { textContent: each }))));
    } catch (problem) {
      byId("estimated").textContent = say("about_estimate");
      throw problem;
    }
  }));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    tell("");
    byId("start").disabled = true;
    try {
      const { name } = await ask("POST", "/api/runs", chosen());
      location.href = `/runs/${path(name)}`;
    } catch (problem) {
      tell(problem);
      byId("start").disabled = false;
    }
  });
})();
