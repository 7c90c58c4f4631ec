"use strict";
/* The shortlist stays in this browser; the server only turns it into a manifest. */
(() => {
  const key = "unbraid-shortlist:" + document.title, form = document.getElementById("shortlist");
  const list = new Set(JSON.parse(localStorage.getItem(key) || "[]"));
  const show = () => {
    localStorage.setItem(key, JSON.stringify([...list]));
    form.hidden = !list.size;
    form.querySelector("b").textContent = list.size === 1 ? "1 track" : list.size + " tracks";
    form.elements.ids.value = JSON.stringify([...list]);
    for (const star of document.querySelectorAll(".star")) {
      const on = list.has(star.dataset.id);
      star.setAttribute("aria-pressed", String(on));
      star.textContent = on ? "★" : "☆";
    }
  };
  for (const star of document.querySelectorAll(".star"))
    star.addEventListener("click", () => { list.has(star.dataset.id) ? list.delete(star.dataset.id) : list.add(star.dataset.id); show(); });
  form.querySelector(".empty").addEventListener("click", () => { list.clear(); show(); });
  show();
})();
