"use strict";
// Shows one query point's maps at a time: the one chosen by its radio button, or the nearest one to
// a click on the picture. Without this script all are shown, one below the other.
(() => {
  const radios = [...document.querySelectorAll("input[name=point]")];
  const sections = [...document.querySelectorAll("section[data-point]")];
  const picture = document.querySelector(".pick");
  const spots = [...document.querySelectorAll(".spot")];
  const show = () => {
    const chosen = radios.findIndex((radio) => radio.checked);
    sections.forEach((section, index) => { section.hidden = index !== chosen; });
    spots.forEach((spot, index) => spot.classList.toggle("chosen", index === chosen));
  };
  radios.forEach((radio) => radio.addEventListener("change", show));
  picture.classList.add("live");
  picture.querySelector("img").addEventListener("click", (event) => {
    const box = event.target.getBoundingClientRect();
    const [width, height] = ["width", "height"].map((name) => Number(picture.dataset[name]));
    const x = (event.clientX - box.left) / box.width * width;
    const y = (event.clientY - box.top) / box.height * height;
    const away = (radio) => Math.hypot(radio.dataset.x - x, radio.dataset.y - y);
    const nearest = radios.reduce((best, radio) => away(radio) < away(best) ? radio : best);
    nearest.checked = true;
    show();
  });
  show();
})();
