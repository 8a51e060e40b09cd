"use strict";
// A mask that is painted over the content: where there is paint, the result shows through.
// sincutMask(content, result) loads two addresses of pictures and gives { blob() }.
const sincutMask = async (content, result) => {
  const { byId } = sincutApp;
  const SIDE = 1024; // pixels of the canvas at most; the server enlarges the mask
  const canvas = byId("paint");
  const loaded = async (address) => {
    const picture = new Image();
    picture.src = address;
    await picture.decode();
    return picture;
  };
  const [below, above] = await Promise.all([content, result].map(loaded));
  const scale = Math.min(1, SIDE / Math.max(below.naturalWidth, below.naturalHeight));
  canvas.width = Math.max(Math.round(below.naturalWidth * scale), 1);
  canvas.height = Math.max(Math.round(below.naturalHeight * scale), 1);
  const layer = () => Object.assign(document.createElement("canvas"),
    { width: canvas.width, height: canvas.height });
  const mask = layer();
  const mixed = layer();
  const pen = mask.getContext("2d");
  let at = [canvas.width / 2, canvas.height / 2];
  let keyboard = false;

  const radius = () => byId("size").value * canvas.width / 1024 / 2 + 1;
  const draw = () => {
    const over = mixed.getContext("2d");
    over.globalCompositeOperation = "copy";
    over.drawImage(above, 0, 0, canvas.width, canvas.height);
    over.globalCompositeOperation = "destination-in";
    over.drawImage(mask, 0, 0);
    const view = canvas.getContext("2d");
    view.drawImage(below, 0, 0, canvas.width, canvas.height);
    view.drawImage(mixed, 0, 0);
    if (!keyboard) return;
    view.strokeStyle = "#fff";
    view.lineWidth = 2;
    view.beginPath();
    view.arc(...at, radius(), 0, 2 * Math.PI);
    view.stroke();
  };
  const stroke = (from, to) => {
    const erase = document.querySelector("input[name=tool]:checked").value === "erase";
    pen.globalCompositeOperation = erase ? "destination-out" : "source-over";
    pen.strokeStyle = "#fff";
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = 2 * radius();
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(to[0] + 0.01, to[1]);
    pen.stroke();
    draw();
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * canvas.width / box.width,
      (event.clientY - box.top) * canvas.height / box.height];
  };
  canvas.onpointerdown = (event) => {
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    keyboard = false;
    at = place(event);
    stroke(at, at);
  };
  canvas.onpointermove = (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    const to = place(event);
    stroke(at, to);
    at = to;
  };
  canvas.onkeydown = (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    keyboard = true;
    if (move) {
      const by = radius() / 2;
      at = [Math.min(Math.max(at[0] + by * move[0], 0), canvas.width),
        Math.min(Math.max(at[1] + by * move[1], 0), canvas.height)];
      draw();
    } else {
      stroke(at, at);
    }
  };
  const all = (work) => () => { work(); draw(); };
  byId("fill").onclick = all(() => {
    pen.globalCompositeOperation = "source-over";
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, mask.width, mask.height);
  });
  byId("clear").onclick = all(() => pen.clearRect(0, 0, mask.width, mask.height));
  draw();
  return { blob: () => new Promise((done) => { mask.toBlob(done, "image/png"); }) };
};
