/* A memory of size 2 x 2 to write into. The data come from assocmem.book.workbench. Everything that
   is shown is computed anew from the list of writes, so that a change of rule replays them.
   Matrices are lists of rows, S is d_v x d as in the book. */

"use strict";

(() => {
  const { element, whenLoaded } = window.figuresThatMove;
  const ROWS = 8; // of the history that are shown
  const TALL = 4; // an error that fills its bar

  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
  const read = (S, k) => S.map((row) => dot(row, k));
  const minus = (a, b) => a.map((x, i) => x - b[i]);
  const scaled = (x, S) => S.map((row) => row.map((entry) => x * entry));
  const product = (A, B) => A.map(([a, b]) => [0, 1].map((j) => a * B[0][j] + b * B[1][j]));
  /* S + v kᵀ */
  const added = (S, v, k) => S.map((row, i) => row.map((entry, j) => entry + v[i] * k[j]));

  function inverse([[a, b], [c, d]]) {
    return scaled(1 / (a * d - b * c), [[d, -b], [-c, a]]);
  }

  const empty = () => [[0, 0], [0, 0]];

  /* Σ γ^(t-j) v_j k_jᵀ */
  const sum = (pairs, decay) =>
    pairs.reduce((S, { k, v }) => added(scaled(decay, S), v, k), empty());

  /* S ← γ S + η (v - γ S k) kᵀ, with a step size η for each key */
  const corrected = (pairs, rate, decay) =>
    pairs.reduce((S, { k, v }) => {
      const X = scaled(decay, S);
      return added(X, minus(v, read(X, k)).map((x) => rate(k) * x), k);
    }, empty());

  /* The memory after some pairs, by the rule's name in assocmem.rules.RULES. */
  const MEMORY = {
    linear_attention: (pairs) => sum(pairs, 1),
    retnet: (pairs, { decay }) => sum(pairs, decay),
    deltanet: (pairs, { beta }) => corrected(pairs, () => beta, 1),
    gated_deltanet: (pairs, { beta, decay }) => corrected(pairs, () => beta, decay),
    longhorn: (pairs, { beta }) => corrected(pairs, (k) => beta / (1 + beta * dot(k, k)), 1),
    mesanet: (pairs, { decay, ridge }) => {
      const [[a, b], [c, d]] = sum(pairs.map(({ k }) => ({ k, v: k })), decay);
      return product(sum(pairs, decay), inverse([[a + ridge, b], [c, d + ridge]]));
    },
  };

  /* What each key reads, the value that was last written under it, and the distance of the two. */
  function readings(keys, written, memory) {
    const S = memory(written);
    return Object.entries(keys).map(([key, k]) => {
      const last = written.filter((pair) => pair.key === key).at(-1);
      const got = read(S, k);
      const error = last === undefined ? null : Math.hypot(...minus(last.v, got));
      return { key, got, wanted: last?.v, error };
    });
  }

  function text(x) {
    const rounded = Number(Math.abs(x) < 10 ? x.toFixed(3) : x.toPrecision(4));
    return String(rounded === 0 ? 0 : rounded).replaceAll("-", "−"); // no "-0", a true minus
  }

  const vector = (v) => (v === undefined ? "–" : `(${v.map(text).join(", ")})`);
  const angle = ([x, y]) => Math.round((180 / Math.PI) * Math.atan2(y, x));
  const size = (error) => (error === null ? "–" : text(error));

  function row(first, ...cells) {
    const made = element("tr");
    made.append(element("th", { scope: "row" }, first), ...cells);
    return made;
  }

  const cell = (content) => element("td", {}, content);

  /* A cell of the state: the larger the entry, the stronger its colour. */
  function tinted(x) {
    const made = cell(text(x));
    made.classList.add("entry", x < 0 ? "negative" : "positive");
    made.style.setProperty("--strength", `${Math.min(35, 12 * Math.abs(x))}%`);
    return made;
  }

  function withBar(error) {
    const made = cell(size(error)), bar = element("span", { class: "bar" });
    bar.style.width = `${Math.min(100, (100 * (error ?? 0)) / TALL)}%`;
    made.append(bar);
    return made;
  }

  /* A table, and a function that gives it other rows. */
  function table(name, caption, heads) {
    const made = element("table", { class: name });
    const head = element("thead"), titles = element("tr"), body = element("tbody");
    titles.append(...heads.map((title) => element("th", { scope: "col" }, title)));
    head.append(titles);
    made.append(element("caption", {}, caption), head, body);
    return [made, (rows) => body.replaceChildren(...rows)];
  }

  function labelled(id, label, control, ...rest) {
    const made = element("div", { class: "controls" });
    control.id = id;
    made.append(element("label", { for: id }, label), control, ...rest);
    return made;
  }

  function button(label, press) {
    const made = element("button", { type: "button" }, label);
    made.addEventListener("click", press);
    return made;
  }

  function build(figure, data) {
    const keys = Object.fromEntries(data.pairs.map(({ key, k }) => [key, k]));
    let written = data.written.map((i) => data.pairs[i]);

    const rule = element("select");
    rule.append(...data.rules.map(({ name, label }) => element("option", { value: name }, label)));
    rule.value = data.start;
    const sliders = {
      beta: element("input", { type: "range", min: 0, max: 2.5, step: 0.1, value: 1 }),
      decay: element("input", { type: "range", min: 0.5, max: 1, step: 0.05, value: 0.9 }),
    };
    const settings = Object.fromEntries(
      Object.keys(sliders).map((gate) => [gate, element("output", { class: "gate" })]),
    );

    const [state, showState] = table("state", "State", ["S", "key’s 1st", "key’s 2nd"]);
    const [now, showNow] = table("now", "Readings", ["key", "wanted", "reads", "error"]);
    const [history, showHistory] = table(
      "history",
      `History, last ${ROWS} writes`,
      ["write", "pair", ...Object.keys(keys).map((key) => `error at ${key}`)],
    );
    const says = element("p", { class: "says", "aria-live": "polite" });

    const memory = (pairs) =>
      MEMORY[rule.value](pairs, {
        beta: Number(sliders.beta.value),
        decay: Number(sliders.decay.value),
        ridge: data.ridge,
      });

    function show() {
      const { gates, label } = data.rules.find(({ name }) => name === rule.value);
      for (const [gate, slider] of Object.entries(sliders)) {
        slider.disabled = !gates.includes(gate);
        settings[gate].textContent = slider.disabled ? "not used" : text(Number(slider.value));
      }
      showState(memory(written).map((entries, i) =>
        row(["value’s 1st", "value’s 2nd"][i], ...entries.map(tinted))));
      const present = readings(keys, written, memory);
      showNow(present.map(({ key, wanted, got, error }) => {
        const place = `${key} at ${angle(keys[key])}°`;
        return row(place, cell(vector(wanted)), cell(vector(got)), withBar(error));
      }));
      const shown = written.map((_, i) => i + 1).slice(-ROWS).reverse();
      showHistory(shown.map((n) => {
        const then = readings(keys, written.slice(0, n), memory);
        const { key, v } = written[n - 1];
        const pair = element("td", { class: "pair" }, `${key} → ${vector(v)}`);
        return row(n, pair, ...then.map(({ error }) => cell(size(error))));
      }));
      const errors = present.filter(({ error }) => error !== null)
        .map(({ key, error }) => `${text(error)} at ${key}`);
      says.textContent = written.length === 0
        ? `${label}: the memory is empty.`
        : `${label}, writes: ${written.length}. Error ${errors.join(", ")}.`;
    }

    function write(pairs) {
      written = pairs;
      show();
    }

    const buttons = element("div", { class: "controls", role: "group", "aria-label": "Writes" });
    buttons.append(
      ...data.pairs.map((pair) =>
        button(`Write ${pair.key} → ${vector(pair.v)}`, () => write([...written, pair]))),
      button("Undo", () => write(written.slice(0, -1))),
      button("Reset", () => write([])),
    );
    const tables = element("div", { class: "tables" });
    tables.append(state, now, history);
    const player = element("div", { class: "player" });
    player.append(
      labelled(`${figure.id}-rule`, "Rule", rule),
      labelled(`${figure.id}-beta`, "Step size β", sliders.beta, settings.beta),
      labelled(`${figure.id}-decay`, "Decay γ", sliders.decay, settings.decay),
      buttons, says, tables,
    );
    for (const control of [rule, sliders.beta, sliders.decay]) {
      control.addEventListener("input", show);
    }
    show();
    return player;
  }

  whenLoaded("workbench", build);
})();
