"use strict";
// A place for one image: dropped, chosen, pasted, or named by its path on this machine.
// sincutDrop(section, changed) gives { id(), look(), take(id) }; `changed` hears of every change.
["dragover", "drop"].forEach((name) => {
  addEventListener(name, (event) => event.preventDefault()); // beside a place: stay on the page
});
const sincutDrop = (section, changed) => {
  const { say, tell, ask, element, bytes } = sincutApp;
  const find = (selector) => section.querySelector(selector);
  const frame = find(".frame");
  let id = null;
  let look = null;
  let turn = 0; // of what was given last

  const clear = () => {
    id = null;
    look = null;
    find(".picture").hidden = true;
    find(".notices").replaceChildren();
    section.classList.remove("filled");
    changed();
  };
  const told = (words) => { find(".said").textContent = words; };

  const described = (found) => [
    found.name,
    ...(found.count ? [say("images_count", found.count)] : []),
    ...(found.width ? [`${found.width} × ${found.height}`] : []),
    ...(found.depth ? [found.depth === "float" ? say("floats") : say("bits", found.depth)] : []),
    ...(found.count ? [] : [found.profile || say("no_profile"), bytes(found.bytes)]),
    ...(found.picture ? [] : [say("too_large_to_show")]),
  ].join(" · ");

  const show = async (given, name, mine) => {
    told(say("looking", name));
    const found = await ask("GET", `/api/images/${given}`);
    if (mine !== turn) return;
    id = given;
    look = found;
    told(described(found));
    find(".notices").replaceChildren(...found.notices.map((each) =>
      element("li", { textContent: each })));
    const picture = find(".picture");
    picture.hidden = !found.picture;
    picture.alt = found.name;
    if (found.picture) picture.src = `/api/images/${given}/picture`;
    section.classList.toggle("filled", found.picture);
    changed();
  };

  // XMLHttpRequest, as fetch tells nothing of what is on its way.
  const send = (given, file, progress) => new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/api/images/${given}`);
    request.upload.onprogress = (event) => { progress.value = event.loaded / event.total; };
    request.onload = () => {
      if (request.status === 200) return done();
      let why;
      try { why = JSON.parse(request.responseText).error; } catch { why = request.responseText; }
      return failed(new Error(why));
    };
    request.onerror = () => failed(new Error(say("no_news")));
    request.send(file);
  });

  const guarded = async (work) => {
    const mine = turn += 1;
    tell("");
    clear();
    const progress = find(".coming");
    try {
      await work(mine, progress);
    } catch (problem) {
      if (mine === turn) {
        told("");
        tell(problem);
      }
    } finally {
      if (mine === turn) progress.hidden = true;
    }
  };

  const takeFile = (file) => guarded(async (mine, progress) => {
    told(say("coming", file.name));
    const announced = await ask("POST", "/api/images", { name: file.name, size: file.size });
    progress.value = 0;
    progress.hidden = false;
    await send(announced.id, file, progress);
    progress.hidden = true;
    await show(announced.id, announced.name, mine);
  });
  const takePath = (path) => guarded(async (mine) => {
    const announced = await ask("POST", "/api/images", { path });
    await show(announced.id, announced.name, mine);
  });
  const take = (given, name) => guarded((mine) => show(given, name, mine));

  const chosen = find("input[type=file]");
  chosen.addEventListener("change", () => {
    if (chosen.files.length) takeFile(chosen.files[0]);
    chosen.value = "";
  });
  const over = (on) => (event) => {
    event.preventDefault();
    section.classList.toggle("over", on);
  };
  section.addEventListener("dragover", over(true));
  section.addEventListener("dragleave", over(false));
  section.addEventListener("drop", (event) => {
    over(false)(event);
    if (event.dataTransfer.files.length) takeFile(event.dataTransfer.files[0]);
  });
  frame.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files][0];
    if (!file) return;
    event.preventDefault();
    takeFile(file);
  });
  find(".take").addEventListener("click", () => takePath(find(".path").value));
  find(".path").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    takePath(find(".path").value);
  });
  return { id: () => id, look: () => look, take, takeFile };
};
