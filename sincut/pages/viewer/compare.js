"use strict";
// Content and result side by side, or one over the other under a divider, zooming together.
// The element "panes" says what is shown: a source of OpenSeadragon, or the id of an <img>.
// The stage's data-start="divided" begins with the divider. A <select id="before">, where there is
// one, chooses another <img> for the first pane.
//
// Of two viewers one leads: the one last touched. Every frame that either moves, the other takes the
// leader's place at once, so both always stand at the same spot and nothing can echo. The first
// viewer also holds the result, unseen until the divider is asked for.
(() => {
  const byId = (id) => document.getElementById(id);
  const panes = JSON.parse(byId("panes").textContent);
  const stage = byId("stage");
  const divider = byId("divider");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  OpenSeadragon.MouseTracker.passiveWheelEvents = false; // the page must not scroll or zoom too

  const picture = (id) => ({ type: "image", url: byId(id).src });
  const source = (pane) => pane.source || picture(pane.picture);

  const view = (id, sources) => OpenSeadragon({
    element: byId(id),
    tileSources: sources,
    showNavigationControl: false, // its pictures would be more files
    animationTime: still ? 0 : 0.6,
    maxZoomPixelRatio: 16,
    minZoomImageRatio: 0.5,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  });
  const first = view("content-view", [
    { tileSource: source(panes[0]) },
    { tileSource: source(panes[1]), opacity: 0 },
  ]);
  const second = view("result-view", [{ tileSource: source(panes[1]) }]);
  const viewers = [first, second];
  let leader = first;
  let share = 0.5; // of the first view's width, left of the divider
  let whole = true; // all of the picture is seen, and is to stay so when the views change in size
  let resized = false; // the leader, in this very frame
  const missing = new Set(); // folders

  const ready = () => viewers.every((viewer) => viewer.isOpen());
  const divided = () => stage.classList.contains("divided");

  // How many pixels of the screen a pixel of the picture takes.
  const scale = () => first.world.getItemAt(0).viewportToImageZoom(
    leader.viewport.getZoom(true)) * devicePixelRatio;

  const divide = () => {
    const items = [first.world.getItemAt(0), first.world.getItemAt(1)];
    items[1].setOpacity(divided() ? 1 : 0);
    items.forEach((item, index) => {
      if (!divided()) {
        item.setClip(null);
        return;
      }
      const { x: width, y: height } = item.getContentSize();
      const point = new OpenSeadragon.Point(share * first.viewport.getContainerSize().x, 0);
      const cut = Math.min(Math.max(item.viewerElementToImageCoordinates(point).x, 0), width);
      item.setClip(index === 0
        ? new OpenSeadragon.Rect(0, 0, cut, height)
        : new OpenSeadragon.Rect(cut, 0, width - cut, height));
    });
  };

  const follow = () => {
    if (!ready()) return;
    const { viewport } = leader;
    if (resized && whole) viewport.goHome(true);
    const aside = viewport.getCenter().distanceTo(viewport.getHomeBounds().getCenter());
    whole = aside < 1e-3 && Math.abs(viewport.getZoom() / viewport.getHomeZoom() - 1) < 1e-3;
    const other = leader === first ? second : first;
    other.viewport.zoomTo(leader.viewport.getZoom(true), null, true);
    other.viewport.panTo(leader.viewport.getCenter(true), true);
    // Enlarged pixels are shown as they are: smoothing would hide what is judged here.
    viewers.forEach((viewer) => viewer.drawer.setImageSmoothingEnabled(scale() <= 1));
    byId("zoom").textContent = (scale() * 100).toFixed(scale() < 0.1 ? 1 : 0) + " %";
    divide();
  };

  const lead = (viewer) => {
    if (leader === viewer || !ready()) return;
    leader = viewer;
    follow(); // stops what still moves in the other
  };

  // The leader goes there; to the middle of the view, not to the pointer.
  const move = (how) => {
    if (!ready()) return;
    how(leader.viewport);
    leader.viewport.applyConstraints();
  };
  const fit = () => move((viewport) => viewport.goHome());
  const pixels = () => move((viewport) => viewport.zoomTo(viewport.getZoom(true) / scale()));
  const zoomBy = (factor) => move((viewport) => viewport.zoomBy(factor));
  const keys = {
    "0": fit, "1": pixels, "+": () => zoomBy(1.5), "=": () => zoomBy(1.5),
    "-": () => zoomBy(1 / 1.5), "_": () => zoomBy(1 / 1.5),
    // The library would turn, mirror or leave the picture.
    "r": () => {}, "f": () => {}, "j": () => {}, "k": () => {},
  };

  ["content", "result"].forEach((name, index) => {
    const viewer = viewers[index];
    viewer.addHandler("open", () => {
      follow();
      // Only now: a view that is hidden from the start would never learn its size.
      if (ready() && stage.dataset.start) {
        // The library tells of a new size before it keeps the old place in it.
        first.addOnceHandler("resize", () => requestAnimationFrame(fit));
        document.querySelector(`input[name=mode][value=${stage.dataset.start}]`).click();
      }
    });
    viewer.addHandler("viewport-change", follow);
    viewer.addHandler("canvas-key", (event) => {
      const pressed = event.originalEvent;
      const action = keys[pressed.key.toLowerCase()];
      if (!action || pressed.ctrlKey || pressed.altKey || pressed.metaKey) return;
      event.preventDefaultAction = true;
      action();
    });
    viewer.addHandler("resize", () => {
      if (viewer !== leader) return;
      resized = true; // the library scales the view after this, and then says that it changed
      queueMicrotask(() => { resized = false; });
    });
    viewer.addHandler("tile-load-failed", (event) => {
      const pane = panes[event.tiledImage.source === first.world.getItemAt(0)?.source ? 0 : 1];
      missing.add(pane.folder);
      const names = [...missing].sort().map((folder) => `“${folder}”`).join(" and ");
      const said = "Tiles are missing: " +
        `keep the folder${missing.size > 1 ? "s" : ""} ${names} beside this page.`;
      if (byId("trouble").textContent !== said) byId("trouble").textContent = said;
    });
    ["pointerdown", "wheel", "keydown"].forEach((type) => byId(name + "-view").addEventListener(
      type, () => lead(viewer), { capture: true, passive: true }));
    viewer.canvas.setAttribute("role", "application");
    viewer.canvas.setAttribute("aria-labelledby", name + "-title");
    viewer.canvas.setAttribute("aria-describedby", "hint");
  });

  const place = (wanted) => {
    share = Math.min(Math.max(wanted, 0), 1);
    divider.style.left = share * 100 + "%";
    divider.setAttribute("aria-valuenow", Math.round(share * 100));
    if (ready()) divide();
  };
  const drag = (event) => {
    const box = byId("content-view").getBoundingClientRect();
    place((event.clientX - box.left) / box.width);
  };
  divider.addEventListener("pointerdown", (event) => {
    divider.setPointerCapture(event.pointerId);
    drag(event);
  });
  divider.addEventListener("pointermove", (event) => {
    if (divider.hasPointerCapture(event.pointerId)) drag(event);
  });
  divider.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.01;
    const wanted = {
      ArrowLeft: share - step, ArrowDown: share - step,
      ArrowRight: share + step, ArrowUp: share + step,
      PageDown: share - 0.1, PageUp: share + 0.1, Home: 0, End: 1,
    }[event.key];
    if (wanted === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    place(wanted);
  });

  document.querySelectorAll("input[name=mode]").forEach((input) => {
    input.addEventListener("change", () => {
      lead(first); // the second is hidden under the divider, and then has no size of its own
      stage.classList.toggle("divided", input.value === "divided");
      if (ready()) divide();
    });
  });
  byId("before")?.addEventListener("change", (event) => {
    const chosen = event.target.selectedOptions[0];
    byId("content-title").textContent = chosen.textContent;
    first.addTiledImage({
      tileSource: picture(chosen.value), index: 0, replace: true, success: () => follow(),
    });
  });
  byId("fit").addEventListener("click", fit);
  byId("pixels").addEventListener("click", pixels);
  byId("in").addEventListener("click", () => zoomBy(1.5));
  byId("out").addEventListener("click", () => zoomBy(1 / 1.5));
})();
