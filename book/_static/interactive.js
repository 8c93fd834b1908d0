/* Figures that the reader moves. Every position was computed in the chapter, as a fraction of its
   axis, by assocmem.book.interactive; here fractions become pixels, and nothing else happens.
   How a player takes the place of a picture is at the end, for other scripts too. */

"use strict";

(() => {
  const WIDTH = 340, HEIGHT = 250; // of a panel, in the units of its viewBox
  const LEFT = 58, RIGHT = 12, TOP = 26, BOTTOM = 44; // margins for labels

  const x = (fraction) => LEFT + fraction * (WIDTH - LEFT - RIGHT);
  const y = (fraction) => HEIGHT - BOTTOM - fraction * (HEIGHT - TOP - BOTTOM);

  function element(name, attributes = {}, text = "") {
    const svg = ["svg", "g", "text", "line", "rect", "polyline"].includes(name);
    const made = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  function axes(panel) {
    const parts = [
      element("text", { x: x(0.5), y: 15, class: "title" }, panel.title),
      element("text", { x: x(0.5), y: HEIGHT - 8 }, panel.axes.x.label),
      element(
        "text",
        { x: 12, y: y(0.5), transform: `rotate(-90 12 ${y(0.5)})` },
        panel.axes.y.label,
      ),
      element("line", { x1: x(0), x2: x(1), y1: y(0), y2: y(0) }),
      element("line", { x1: x(0), x2: x(0), y1: y(0), y2: y(1) }),
    ];
    for (const [at, text] of panel.axes.x.ticks) {
      parts.push(element("text", { x: x(at), y: y(0) + 15 }, text));
    }
    for (const [at, text] of panel.axes.y.ticks) {
      parts.push(element("line", { x1: x(0), x2: x(1), y1: y(at), y2: y(at), class: "grid" }));
      parts.push(element("text", { x: x(0) - 5, y: y(at) + 4, class: "beside" }, text));
    }
    if (panel.level !== null) {
      const at = y(panel.level);
      parts.push(element("line", { x1: x(0), x2: x(1), y1: at, y2: at, class: "level" }));
    }
    return parts;
  }

  /* The marks of a panel, and a function that moves them to the heights of a frame. */
  function marks(panel) {
    if (panel.kind === "line") {
      const line = element("polyline");
      const move = (heights) => {
        line.setAttribute("points", heights.map((h, i) => `${x(panel.at[i])},${y(h)}`).join(" "));
      };
      return [[line], move];
    }
    const step = panel.at.length > 1 ? panel.at[1] - panel.at[0] : 1;
    const width = 0.8 * (x(step) - x(0));
    const bars = panel.at.map((at) => element("rect", { x: x(at) - width / 2, width }));
    const move = (heights) => {
      heights.forEach((h, i) => {
        bars[i].setAttribute("y", y(Math.max(h, panel.foot)));
        bars[i].setAttribute("height", Math.abs(y(panel.foot) - y(h)));
      });
    };
    return [bars, move];
  }

  function drawing(panel) {
    const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" });
    const [shapes, move] = marks(panel);
    svg.append(...axes(panel), ...shapes);
    return [svg, move];
  }

  function build(figure, data) {
    const id = `${figure.id}-slider`;
    const drawings = data.panels.map(drawing);
    const slider = element("input", {
      type: "range", id, min: 0, max: data.frames.length - 1, step: 1, value: data.start,
    });
    const setting = element("output", { for: id, class: "setting" });
    const says = element("p", { class: "says", "aria-live": "polite" });
    const show = () => {
      const frame = data.frames[Number(slider.value)];
      setting.textContent = frame.setting;
      slider.setAttribute("aria-valuetext", frame.setting);
      says.textContent = frame.says;
      drawings.forEach(([, move], i) => move(frame.heights[i]));
    };
    const controls = element("div", { class: "controls" });
    controls.append(element("label", { for: id }, data.control), slider, setting);
    const panels = element("div", { class: "panels" });
    panels.append(...drawings.map(([svg]) => svg));
    const player = element("div", { class: "player" });
    player.append(controls, panels, says);
    slider.addEventListener("input", show);
    show();
    return player;
  }

  /* Puts what `build` makes of a figure and its data in the place of the figure's picture, for all
     outputs of one class. */
  function standIn(kind, build) {
    for (const output of document.querySelectorAll(`div.${kind}[data-for]`)) {
      const figure = document.getElementById(output.dataset.for);
      if (figure === null || figure.querySelector(".player")) continue;
      const player = build(figure, JSON.parse(output.querySelector("script").textContent));
      const caption = figure.querySelector("figcaption");
      for (const child of figure.children) if (child !== caption) child.hidden = true;
      figure.insertBefore(player, caption);
    }
  }

  function whenLoaded(kind, build) {
    const start = () => standIn(kind, build);
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
    else start();
  }

  window.figuresThatMove = { element, whenLoaded };
  whenLoaded("interactive", build);
})();
