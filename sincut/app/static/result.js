"use strict";
// What a run makes of images: a look to zoom into, a mask, outputs at full size.
(() => {
  const { say, tell, ask, doing, element, follow, bytes, duration, path, byId } = sincutApp;
  const name = byId("title").dataset.name;
  const api = `/api/runs/${path(name)}`;
  const address = `/runs/${path(name)}`;
  let viewer = null;
  let shown = ""; // the output that is seen
  let made = 1; // the strength of that output
  let mask = null;
  let before = "";

  // The look: two Deep Zoom images over each other, the result cut at the divider.
  const source = (part, look) => ({ Image: {
    xmlns: "http://schemas.microsoft.com/deepzoom/2008", Url: `${address}/look/${part}/`,
    Format: "png", Overlap: "0", TileSize: String(look.tile),
    Size: { Width: String(look.width), Height: String(look.height) } } });
  const cut = () => {
    const item = viewer?.world.getItemAt(1);
    if (!item) return;
    const { x: width, y: height } = item.getContentSize();
    const share = byId("divide").value / 100;
    const point = new OpenSeadragon.Point(share * viewer.viewport.getContainerSize().x, 0);
    const left = Math.min(Math.max(item.viewerElementToImageCoordinates(point).x, 0), width);
    item.setClip(new OpenSeadragon.Rect(left, 0, width - left, height));
    // What was made with a strength below 1 has content in it already, and cannot be made stronger.
    item.setOpacity(Math.min(+byId("strength").value / Math.max(made, 1e-6), 1));
    const scale = item.viewportToImageZoom(viewer.viewport.getZoom(true)) * devicePixelRatio;
    viewer.drawer.setImageSmoothingEnabled(scale <= 1);
    byId("zoom").textContent = `${(scale * 100).toFixed(scale < 0.1 ? 1 : 0)} %`;
  };
  const showLook = (look) => {
    byId("viewer").hidden = !look.output;
    byId("no-look").hidden = Boolean(look.output);
    if (!look.output || look.output === shown) return;
    shown = look.output;
    made = look.strength;
    byId("shown-name").textContent = look.output;
    viewer?.destroy();
    OpenSeadragon.MouseTracker.passiveWheelEvents = false;
    viewer = OpenSeadragon({
      element: byId("stage"),
      tileSources: [source("content", look), source("result", look)]
        .map((each) => ({ tileSource: each })),
      showNavigationControl: false,
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.6,
      maxZoomPixelRatio: 16,
      minZoomImageRatio: 0.5,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    viewer.addHandler("open", cut);
    viewer.addHandler("viewport-change", cut);
    viewer.world.addHandler("add-item", cut);
    viewer.canvas.setAttribute("role", "application");
    viewer.canvas.setAttribute("aria-label", say("zoomable"));
  };
  const move = (how) => () => {
    if (!viewer?.isOpen()) return;
    how(viewer.viewport);
    viewer.viewport.applyConstraints();
  };
  const divide = (share) => {
    byId("divide").value = share;
    byId("line").parentElement.style.setProperty("--at", `${share}%`);
    cut();
  };
  byId("divide").addEventListener("input", () => divide(byId("divide").value));
  byId("line").addEventListener("pointerdown", (event) => {
    event.preventDefault();
    byId("line").setPointerCapture(event.pointerId);
  });
  byId("line").addEventListener("pointermove", (event) => {
    if (!byId("line").hasPointerCapture(event.pointerId)) return;
    const box = byId("stage").getBoundingClientRect();
    divide(Math.min(Math.max(100 * (event.clientX - box.left) / box.width, 0), 100));
  });
  divide(50);
  byId("fit").addEventListener("click", move((view) => view.goHome()));
  byId("pixels").addEventListener("click", move((view) => {
    const item = viewer.world.getItemAt(0);
    view.zoomTo(view.getZoom(true) / (item.viewportToImageZoom(view.getZoom(true)) * devicePixelRatio));
  }));
  byId("in").addEventListener("click", move((view) => view.zoomBy(1.5)));
  byId("out").addEventListener("click", move((view) => view.zoomBy(1 / 1.5)));

  // Settings, as options of the command.
  const sliders = ["strength", "brushwork"];
  const showSliders = () => sliders.forEach((each) => {
    byId(`${each}-sets`).textContent = `--${each} ${+byId(each).value}`;
  });
  sliders.forEach((each) => byId(each).addEventListener("input", () => {
    showSliders();
    cut();
  }));
  showSliders();
  const settings = () => ({ brushwork: byId("brushwork").value,
    working_width: byId("working_width").value });

  const other = sincutDrop(byId("other"), () => {});
  document.querySelectorAll("input[name=image]").forEach((each) => {
    each.addEventListener("change", () => { byId("other").hidden = each.value !== "other"; });
  });

  // The mask.
  const prepareMask = async () => {
    if (mask) return;
    const run = await ask("GET", api);
    if (!run.previews.length) return;
    mask = await sincutMask(`${address}/pictures/content`,
      `${address}/previews/${run.previews.at(-1)}`);
  };
  byId("masking").addEventListener("toggle", () => {
    if (byId("masking").open) prepareMask().catch(tell);
  });
  byId("keep-mask").addEventListener("click", doing(async () => {
    await prepareMask();
    const kept = await ask("PUT", `${api}/mask`, await mask.blob());
    byId("mask-said").textContent = say("mask_kept", kept.width, kept.height, kept.place);
    byId("masked").disabled = false;
    byId("masked").checked = true;
  }));

  // Translations.
  let watched = new Set(); // jobs
  const lookAt = async (each) => {
    shown = "";
    show(await ask("POST", `${api}/results/${path(each.job)}`, { action: "look" }));
    again();
  };
  const tiles = (each) => {
    if (each.done.length) return say("tiles", ...each.done);
    return say("working");
  };
  const row = (each) => {
    const act = (action) => doing(async () => {
      show(await ask("POST", `${api}/results/${path(each.job)}`, { action }));
      again();
    });
    const button = (words, action) => element("button", { type: "button", textContent: say(words),
      "aria-label": `${say(words)}: ${each.output}`, onclick: act(action) });
    const running = each.state === "running";
    const said = each.state === "finished"
      ? [say("made", each.plan?.width ?? "–", each.plan?.height ?? "–", duration(each.seconds ?? 0)),
        ...(each.bytes ? [bytes(each.bytes)] : [])].join(" · ")
      : running ? tiles(each) : each.why || say("state_stopped");
    const bar = element("progress", { max: each.done[1] || 1,
      "aria-label": each.output });
    if (each.done.length) [bar.value] = each.done;
    return element("li", { className: each.state },
      element("div", { className: "row" },
        element("strong", { textContent: `${each.input} → ${each.output}` }),
        element("span", { className: "soft", textContent: said }),
        ...(running ? [bar, button("stop", "stop")] : []),
        ...(each.download ? [element("button", { type: "button", textContent: say("look_closely"),
          "aria-label": `${say("look_closely")}: ${each.output}`,
          onclick: doing(() => lookAt(each)) }), element("a", { href: `${address}/results/${path(each.output)}`,
          download: each.output, className: "button", textContent: say("download"),
          "aria-label": `${say("download")}: ${each.output}` })] : []),
        ...(each.state === "stopped" || each.state === "failed" ? [button("go_on", "resume")] : []),
        ...(running ? [] : [button("forget", "forget")])),
      element("code", { textContent: each.place }),
      ...(each.notices.length ? [element("ul", { className: "soft" },
        ...each.notices.map((line) => element("li", { textContent: line })))] : []));
  };
  const show = (found) => {
    byId("place").textContent = found.place;
    byId("masked").disabled = !found.mask;
    byId("make").disabled = !found.model;
    const said = found.look.running ? say("cutting") : found.look.why;
    if (byId("look-state").textContent !== said) byId("look-state").textContent = said;
    if (!found.look.running) showLook(found.shown);
    // What this page has seen being made is shown as soon as it is there.
    const done = found.results.find((each) => watched.has(each.job) && each.download);
    watched = new Set(found.results.filter((each) => each.state === "running")
      .map((each) => each.job));
    if (done && !found.look.running) lookAt(done).catch(tell);
    const now = JSON.stringify(found.results);
    if (now !== before) {
      before = now;
      byId("results").replaceChildren(...found.results.map(row));
    }
    return found;
  };
  const begin = async (more) => {
    const otherWanted = document.querySelector("input[name=image]:checked").value === "other";
    if (otherWanted && !other.id()) throw new Error(say("other_image"));
    show(await ask("POST", `${api}/results`, {
      image: otherWanted ? other.id() : "content", masked: byId("masked").checked, ...more }));
    again();
  };
  byId("make").addEventListener("click", doing(() => begin({
    ending: byId("ending").value,
    settings: { ...settings(), strength: byId("strength").value, depth: byId("depth").value },
  })));
  ask("GET", api).then((run) => {
    byId("title").textContent = run.title;
    document.title = `${say("result")} · ${run.title} · sincut`;
  }).catch(tell);
  const again = follow(async () => {
    const found = show(await ask("GET", `${api}/results`));
    const busy = found.look.running || found.results.some((each) => each.state === "running");
    return busy ? 1 : 15;
  });
})();
