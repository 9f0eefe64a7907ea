// What pages do beside being read: a switch for light and dark, pictures that say what is under the pointer (or under
// the arrow keys), and sliders that mix two pictures. Without it everything is still there to read.
"use strict";
(() => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = document.querySelector("#theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const label = () => { theme.textContent = isDark() ? "Light page" : "Dark page"; };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  dark.addEventListener("change", label);
  label();

  for (const group of document.querySelectorAll(".probes")) {
    const places = [...group.querySelectorAll("[data-say]")], columns = Number(group.dataset.columns || 1);
    const say = group.closest("figure").querySelector("output.say");
    let at = -1;
    const show = (next) => {
      if (next < 0 || next >= places.length) return;
      if (at >= 0) places[at].classList.remove("on");
      at = next;
      places[at].classList.add("on");
      if (places[at].dataset.top !== undefined) places[at].parentNode.append(places[at]);
      say.textContent = places[at].dataset.say;
    };
    const under = (event) => { const place = event.target.closest("[data-say]"); if (place) show(places.indexOf(place)); };
    group.addEventListener("pointerover", under);
    group.addEventListener("click", under);
    group.addEventListener("focus", () => { if (at < 0) show(0); });
    group.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
      if (move === undefined) return;
      event.preventDefault();
      show(at + move);
    });
  }

  for (const slider of document.querySelectorAll("input[data-mix]")) {
    const mix = () => slider.closest("figure").style.setProperty("--mix", slider.value);
    slider.addEventListener("input", mix);
    mix();
  }
})();
