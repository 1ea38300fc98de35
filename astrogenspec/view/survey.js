"use strict";
(async function () {
  const page = JSON.parse(document.getElementById("content").textContent);
  const { element, svg, plural, percent, number, ticks, MISSING } = Charts;
  const arrays = await Charts.unpacked(page.arrays);
  const byId = (id) => document.getElementById(id);
  // Rows of a page of the table, and galaxies of the sample that are drawn.
  const ROWS = 25, DOTS = 800;
  const sample = page.sample;
  const [NY, NX] = page.views.length ? arrays[`density ${page.views[0].key}`].shape.slice(1) : [0, 0];
  // Largest value that the codes of a density stand for: log10(1 + number).
  const DENSITY_TOP = 10;
  const state = { good: false, box: null, chosen: null, first: 0, draw: matchMedia("(pointer: fine)").matches };
  const values = {};
  for (const [key, { low, high }] of Object.entries(sample.columns)) {
    values[key] = Float64Array.from(arrays[`sample ${key}`].values, (c) => (c === MISSING ? NaN : low + (c / (MISSING - 1)) * (high - low)));
  }
  const flagOf = (k) => sample.flags[arrays["sample flags"].values[k]];
  if (page.sky) {
    const [h, w] = page.sky.shape;
    values.sky_x = Float64Array.from(arrays["sample sky_x"].values, (c) => (c === MISSING ? NaN : (c / (MISSING - 1)) * (w - 1)));
    values.sky_y = Float64Array.from(arrays["sample sky_y"].values, (c) => (c === MISSING ? NaN : (c / (MISSING - 1)) * (h - 1)));
  }

  // ---- head

  function writeHead() {
    byId("lead").textContent = `Properties of ${plural(page.n, "galaxy", "galaxies")} were estimated by a neural network from photometry or images, not measured on spectra. Each has a median and a 68% interval, in which the true value should lie for about two of three galaxies. The figures show medians of all galaxies${sample.n < page.n ? `; the table is a random sample of ${sample.n.toLocaleString("en")}` : ""}.`;
    const share = page.n ? page.n_flagged / page.n : 0;
    const warning = byId("warning");
    const reasons = page.flags.slice(0, 4).map((f) => `${f.name} ${f.count.toLocaleString("en")}`).join(", ");
    if (page.n_flagged) {
      warning.textContent = `Distrust ${page.n_flagged.toLocaleString("en")} of ${plural(page.n, "galaxy", "galaxies")} (${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%): they are flagged, which means that the input is unlike what the network was trained on, or a part of it could not be used. Reasons: ${reasons}.`;
    } else {
      warning.textContent = "No galaxy is flagged: nothing unusual was found in the input.";
      warning.classList.add("fine");
    }
    const missing = [];
    if (page.n_expected !== null && page.n_expected !== page.n) missing.push(`the run is not complete: ${page.n.toLocaleString("en")} of ${page.n_expected.toLocaleString("en")} rows are there`);
    if (page.n_quarantined) missing.push(`${plural(page.n_quarantined, "partition", "partitions")} could not be read`);
    if (page.n_unusable) missing.push(`${plural(page.n_unusable, "galaxy has", "galaxies have")} no result`);
    const text = missing.join("; ");
    byId("incomplete").hidden = !missing.length;
    byId("incomplete").textContent = text && `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
    const { about } = page;
    byId("footer").textContent = `${about.weights ? `Weights ${about.weights}. ` : ""}${about.draws ? `${about.draws} draws for each galaxy. ` : ""}Made from ${plural(about.files, "file", "files")} with astrogenspec ${about.software} on ${about.date}. This page is complete in itself and sends nothing over the network.`;
  }

  // ---- pictures of arrays

  function painted(w, h, colourAt) {
    const canvas = element("canvas", { width: w, height: h });
    const context = canvas.getContext("2d");
    const image = context.createImageData(w, h);
    for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
      const t = colourAt(x, h - 1 - y);
      if (t === null) continue;
      const [r, g, b] = page.colours[Math.round(Math.min(1, Math.max(0, t)) * (page.colours.length - 1))];
      image.data.set([r, g, b, 255], 4 * (y * w + x));
    }
    context.putImageData(image, 0, 0);
    return canvas.toDataURL();
  }

  // A view: a picture with axes in which boxes are drawn. Coordinates of boxes are those of the columns.
  function makeView({ key, W, H, left, right, top, base, xs, ys, xLow, xHigh, yLow, yHigh, title, describe }) {
    const X = (v) => left + ((v - xLow) / (xHigh - xLow)) * (right - left);
    const Y = (v) => base - ((v - yLow) / (yHigh - yLow)) * (base - top);
    const chart = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart field", tabindex: "0", role: "application", "aria-label": `${title}; arrow keys move a cross, Enter selects around it, Escape clears` });
    const picture = svg("image", { x: left, y: top, width: right - left, height: base - top, preserveAspectRatio: "none" });
    const over = svg("g"), dots = svg("path", { class: "chosen" }), edge = svg("path", { class: "chosen-edge" });
    const box = svg("rect", { class: "brush", visibility: "hidden" });
    const cross = svg("path", { class: "cross", visibility: "hidden" });
    const words = svg("text", { class: "readout", x: right - 4, y: top + 14, "text-anchor": "end" });
    chart.append(picture, over, edge, dots, box, cross, words);
    const data = (event) => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
      const x = Math.min(right, Math.max(left, point.x)), y = Math.min(base, Math.max(top, point.y));
      return [xLow + ((x - left) / (right - left)) * (xHigh - xLow), yLow + ((base - y) / (base - top)) * (yHigh - yLow)];
    };
    let start = null, at = [(xLow + xHigh) / 2, (yLow + yHigh) / 2];
    const place = (a, b) => {
      const [x0, x1] = [X(a[0]), X(b[0])].sort((p, q) => p - q), [y0, y1] = [Y(a[1]), Y(b[1])].sort((p, q) => p - q);
      for (const [name, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0, visibility: "visible" })) box.setAttribute(name, value);
    };
    chart.addEventListener("pointerdown", (event) => {
      if (!state.draw || event.button) return;
      start = data(event);
      chart.setPointerCapture(event.pointerId);
    });
    chart.addEventListener("pointermove", (event) => {
      const now = data(event);
      words.textContent = describe(...now);
      if (start) place(start, now);
    });
    chart.addEventListener("pointerleave", () => { words.textContent = ""; });
    chart.addEventListener("pointerup", (event) => {
      if (!start) return;
      const end = data(event), from = start;
      start = null;
      const drawn = Math.abs(X(end[0]) - X(from[0])) > 4 && Math.abs(Y(end[1]) - Y(from[1])) > 4;
      select(drawn ? { key, a: from, b: end } : null);
    });
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      const dx = (xHigh - xLow) / 40, dy = (yHigh - yLow) / 40;
      if (step) {
        at = [Math.min(xHigh, Math.max(xLow, at[0] + step[0] * dx)), Math.min(yHigh, Math.max(yLow, at[1] + step[1] * dy))];
        cross.setAttribute("d", `M${X(at[0]) - 9},${Y(at[1])}h18M${X(at[0])},${Y(at[1]) - 9}v18`);
        cross.setAttribute("visibility", "visible");
        words.textContent = describe(...at);
        byId("selected").textContent = describe(...at);
      } else if (event.key === "Enter") {
        select({ key, a: [at[0] - 2 * dx, at[1] - 2 * dy], b: [at[0] + 2 * dx, at[1] + 2 * dy] });
      } else if (event.key === "Escape") {
        select(null);
      } else return;
      event.preventDefault();
    });
    function show() {
      const mine = state.box && state.box.key === key;
      if (mine) place(state.box.a, state.box.b);
      else box.setAttribute("visibility", "hidden");
      let d = "";
      if (state.chosen) {
        const x = values[xs], y = values[ys];
        for (const k of state.chosen.slice(0, DOTS)) {
          if (x[k] >= xLow && x[k] <= xHigh && y[k] >= yLow && y[k] <= yHigh) d += `M${X(x[k]).toFixed(1)},${Y(y[k]).toFixed(1)}h0`;
        }
      }
      dots.setAttribute("d", d);
      edge.setAttribute("d", d);
    }
    return { key, xs, ys, chart, picture, over, show, X, Y };
  }

  // ---- densities

  const views = [];
  function densityView(v) {
    const W = 360, H = 300, left = 46, right = 352, top = 28, base = 256;
    const { values: codes } = arrays[`density ${v.key}`];
    const count = (layer, x, y) => Math.round(10 ** ((codes[(layer * NY + y) * NX + x] / (MISSING - 1)) * DENSITY_TOP) - 1);
    const describe = (a, b) => {
      const x = Math.min(NX - 1, Math.floor(((a - v.x.low) / (v.x.high - v.x.low)) * NX));
      const y = Math.min(NY - 1, Math.floor(((b - v.y.low) / (v.y.high - v.y.low)) * NY));
      return plural(count(state.good ? 0 : 1, Math.max(0, x), Math.max(0, y)), "galaxy", "galaxies");
    };
    const view = makeView({ key: v.key, W, H, left, right, top, base, xs: v.x.key, ys: v.y.key, xLow: v.x.low, xHigh: v.x.high, yLow: v.y.low, yHigh: v.y.high, title: v.title, describe });
    view.paint = () => {
      const layer = state.good ? 0 : 1, most = Math.log10(1 + Math.max(1, v.most[layer]));
      view.picture.setAttribute("href", painted(NX, NY, (x, y) => {
        const code = codes[(layer * NY + y) * NX + x];
        return code === 0 ? null : ((code / (MISSING - 1)) * DENSITY_TOP) / most;
      }));
    };
    const axes = svg("g");
    axes.append(svg("text", { class: "head", x: left, y: 16 }, v.title));
    for (const [t, text] of ticks(v.x.low, v.x.high, 5)) axes.append(svg("line", { class: "axis", x1: view.X(t), x2: view.X(t), y1: base, y2: base + 4 }), svg("text", { x: view.X(t), y: base + 17, "text-anchor": "middle" }, text));
    for (const [t, text] of ticks(v.y.low, v.y.high, 5)) axes.append(svg("line", { class: "axis", x1: left - 4, x2: left, y1: view.Y(t), y2: view.Y(t) }), svg("text", { x: left - 6, y: view.Y(t) + 4, "text-anchor": "end" }, text));
    axes.append(svg("rect", { class: "axis", x: left, y: top, width: right - left, height: base - top }));
    axes.append(svg("text", { class: "label", x: (left + right) / 2, y: base + 36, "text-anchor": "middle" }, v.x.label));
    axes.append(svg("text", { class: "label", transform: `translate(11,${(top + base) / 2}) rotate(-90)`, "text-anchor": "middle" }, v.y.label));
    if (v.key === "bpt") {
      for (const curve of page.curves) {
        const points = curve.points.filter(([x, y]) => x >= v.x.low && x <= v.x.high && y >= v.y.low && y <= v.y.high);
        if (points.length) view.over.append(svg("path", { class: `curve${curve.dashed ? " dashed" : ""}`, d: "M" + points.map(([x, y]) => `${view.X(x).toFixed(1)},${view.Y(y).toFixed(1)}`).join("L") }));
      }
    }
    view.chart.prepend(axes);
    const left_out = v.outside ? `${plural(v.outside, "galaxy is", "galaxies are")} outside of the axes. ` : "";
    const unknown = v.missing ? `${plural(v.missing, "galaxy has", "galaxies have")} no value. ` : "";
    byId("views").append(element("div", { class: "view" }, view.chart, element("p", { class: "note" }, left_out + unknown)));
    views.push(view);
  }

  // ---- sky

  function skyView() {
    if (!page.sky) return;
    byId("sky-section").hidden = false;
    const { shape: [h, w], layers } = page.sky;
    const select = byId("layer");
    select.append(...layers.map((l, k) => element("option", { value: k }, l.title)));
    const layer = () => layers[Number(select.value)];
    const value = (x, y) => {
      const code = arrays[`sky ${layer().key}`].values[y * w + x];
      return code === MISSING ? null : layer().low + (code / (MISSING - 1)) * (layer().high - layer().low);
    };
    const shown = (v) => (v === null ? "no galaxies" : layer().logarithmic ? `${10 ** v >= 10 ? Math.round(10 ** v).toLocaleString("en") : (10 ** v).toPrecision(2)}` : number(v, 3));
    const describe = (x, y) => shown(value(Math.min(w - 1, Math.max(0, Math.round(x))), Math.min(h - 1, Math.max(0, Math.round(y)))));
    const view = makeView({ key: "sky", W: w, H: h, left: 0, right: w, top: 0, base: h, xs: "sky_x", ys: "sky_y", xLow: -0.5, xHigh: w - 0.5, yLow: -0.5, yHigh: h - 0.5, title: "map of the sky", describe });
    const inside = arrays["sky inside"].values;
    let d = "";
    for (let y = 0; y < h; y++) {
      const from = inside.indexOf(1, y * w), to = inside.lastIndexOf(1, (y + 1) * w - 1);
      if (from >= y * w && from < (y + 1) * w) d += `M${from - y * w},${h - 1 - y}h${to - from + 1}v1h${from - to - 1}z`;
    }
    view.chart.prepend(svg("path", { class: "globe", d }));
    for (const line of page.sky.graticule) {
      view.over.append(svg("path", { class: "graticule", d: "M" + line.points.map((p) => p.join(",")).join("L") }));
      const [x, y] = line.points[Math.floor(line.points.length * (line.parallel ? 0.96 : 0.5))];
      view.over.append(svg("text", { class: "graticule-label", x: x + 3, y: y - 3 }, line.label));
    }
    view.paint = () => {
      const { low, high } = layer();
      view.picture.setAttribute("href", painted(w, h, (x, y) => { const v = value(x, y); return v === null ? null : (v - low) / (high - low); }));
      const bar = painted(64, 1, (x) => x / 63);
      byId("scale").replaceChildren(
        element("strong", {}, layer().title),
        element("img", { src: bar, alt: "", class: "colour-bar" }),
        element("div", { class: "ends" }, element("span", {}, shown(low)), element("span", {}, shown(high))));
    };
    select.addEventListener("change", view.paint);
    const missing = page.sky.missing ? ` ${plural(page.sky.missing, "galaxy has", "galaxies have")} no position.` : "";
    byId("sky-note").textContent = `${page.sky.whole ? "Mollweide projection; north" : "North"} is up and east on the left. HEALPix pixels of order ${page.sky.order} (${page.sky.pixel < 0.1 ? `${(60 * page.sky.pixel).toPrecision(2)} arcmin` : `${page.sky.pixel.toPrecision(2)}°`}).${missing}`;
    byId("sky").append(view.chart);
    views.push(view);
  }

  // ---- quantities and flags

  function quantityChart(q) {
    const W = 260, H = 124, left = 8, right = 252, base = 96, top = 26, n = q.unflagged.length;
    const X = (v) => left + ((v - q.low) / (q.high - q.low)) * (right - left);
    const most = Math.max(1, ...q.unflagged.map((c, i) => c + q.flagged[i]));
    const outline = (counts) => {
      const step = (right - left) / n;
      return `M${left},${base}` + counts.map((c, i) => `V${(base - (c / most) * (base - top)).toFixed(1)}H${(left + (i + 1) * step).toFixed(1)}`).join("") + `V${base}Z`;
    };
    const dex = q.logarithmic || q.unit.startsWith("dex");
    const width = q.typical === null ? "–" : q.logarithmic ? `a factor of ${(10 ** q.typical).toFixed(1)}` : `± ${number(q.typical, q.digits)}${dex ? " dex" : ""}`;
    const chart = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img", "aria-label": `${q.title}: typical uncertainty ${width}` });
    chart.append(svg("title", {}, q.description));
    chart.append(svg("path", { class: "distrusted", d: outline(q.unflagged.map((c, i) => c + q.flagged[i])) }));
    chart.append(svg("path", { class: "post", d: outline(q.unflagged) }));
    if (q.typical !== null) {
      const half = (q.typical / (q.high - q.low)) * (right - left);
      chart.append(svg("line", { class: "band", x1: right - 2 * half - 2, x2: right - 2, y1: top + 6, y2: top + 6 }));
    }
    chart.append(svg("line", { class: "axis", x1: left, x2: right, y1: base, y2: base }));
    for (const [t, text] of ticks(q.low, q.high, 4)) chart.append(svg("line", { class: "axis", x1: X(t), x2: X(t), y1: base, y2: base + 4 }), svg("text", { x: X(t), y: base + 18, "text-anchor": "middle" }, text));
    chart.append(svg("text", { class: "head", x: left, y: 13 }, q.axis));
    return element("div", {}, chart, element("p", { class: "note" }, `Typical uncertainty: ${width}.`));
  }

  function writeFlags() {
    byId("flags-section").hidden = !page.flags.length;
    byId("flags").append(
      element("thead", {}, element("tr", {}, ...["Flag", "Galaxies", "Fraction"].map((t) => element("th", { scope: "col" }, t)))),
      element("tbody", {}, ...page.flags.map((f) => element("tr", {}, element("th", { scope: "row" }, f.name), element("td", { class: "number" }, f.count.toLocaleString("en")), element("td", { class: "number" }, `${((100 * f.count) / page.n).toPrecision(2)}%`)))));
  }

  // ---- selection and table

  function select(box) {
    state.box = box;
    update();
  }

  function update() {
    const view = state.box && views.find((v) => v.key === state.box.key);
    state.chosen = null;
    if (view) {
      const { a, b } = state.box, x = values[view.xs], y = values[view.ys];
      const [x0, x1] = [a[0], b[0]].sort((p, q) => p - q), [y0, y1] = [a[1], b[1]].sort((p, q) => p - q);
      state.chosen = [];
      for (let k = 0; k < sample.n; k++) if (x[k] >= x0 && x[k] <= x1 && y[k] >= y0 && y[k] <= y1 && !(state.good && flagOf(k))) state.chosen.push(k);
    }
    state.first = 0;
    views.forEach((v) => v.show());
    const total = state.good ? page.n - page.n_flagged : page.n;
    const basis = state.good ? rows().length : sample.n;
    byId("selected").textContent = state.chosen
      ? `${state.chosen.length.toLocaleString("en")} galaxies${sample.n < page.n ? " of the sample" : ""} are selected${sample.n < page.n ? `, that is about ${percentOf(state.chosen.length, state.good ? unflagged : sample.n)} of all (${Math.round((state.chosen.length / (state.good ? unflagged : sample.n)) * total).toLocaleString("en")} of ${total.toLocaleString("en")})` : ""}.`
      : "";
    writeRows(basis);
  }

  const percentOf = (n, all) => (all ? percent(n / all) : "–");
  let unflagged = 0;
  for (let k = 0; k < sample.n; k++) if (!flagOf(k)) unflagged++;

  function rows() {
    if (state.chosen) return state.chosen;
    const all = [];
    for (let k = 0; k < sample.n; k++) if (!(state.good && flagOf(k))) all.push(k);
    return all;
  }

  const shownValue = (q, v) => (Number.isNaN(v) ? "–" : !q.logarithmic ? number(v, q.digits) : 10 ** v >= 100 ? (10 ** v).toFixed(0) : (10 ** v).toPrecision(2));
  const nameOf = (k) => (sample.identifiers ? sample.identifiers[k] : `galaxy ${k + 1} of the sample`);

  function writeRows() {
    const found = rows();
    byId("shown").textContent = `${found.length.toLocaleString("en")} galaxies${state.chosen ? " in the box" : ""}${sample.n < page.n ? `, of a random sample of ${sample.n.toLocaleString("en")}` : ` of ${sample.n.toLocaleString("en")}`}. Medians; line fluxes in 1e-17 erg/s/cm².`;
    document.querySelector("#table tbody").replaceChildren(...found.slice(state.first, state.first + ROWS).map((k) => element("tr", {},
      element("td", { class: "name" }, nameOf(k)),
      ...sample.positions.map((p) => element("td", { class: "number" }, number(Number.isNaN(values[p][k]) ? null : values[p][k], 3))),
      element("td", { class: "flag" }, flagOf(k) ? `▲ ${flagOf(k)}` : ""),
      ...page.quantities.map((q) => element("td", { class: "number" }, shownValue(q, values[q.key][k]))))));
    const pages = Math.max(1, Math.ceil(found.length / ROWS));
    byId("page-number").textContent = `Page ${Math.floor(state.first / ROWS) + 1} of ${pages.toLocaleString("en")}`;
    byId("previous-page").disabled = state.first === 0;
    byId("next-page").disabled = state.first + ROWS >= found.length;
  }

  function csv() {
    const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const value = (q, v) => (Number.isNaN(v) ? "" : Number((q.logarithmic ? 10 ** v : v).toPrecision(5)));
    const head = [sample.identifier ?? "galaxy", ...sample.positions, ...page.quantities.map((q) => `${q.key}_median`), "flags"];
    const lines = rows().map((k) => [quoted(nameOf(k)), ...sample.positions.map((p) => (Number.isNaN(values[p][k]) ? "" : values[p][k].toFixed(4))), ...page.quantities.map((q) => value(q, values[q.key][k])), quoted(flagOf(k))].join(","));
    return [head.join(","), ...lines].join("\r\n") + "\r\n";
  }

  writeHead();
  if (sample.n === page.n) byId("table-title").textContent = "Table of galaxies";
  skyView();
  page.views.forEach(densityView);
  byId("quantities").append(...page.quantities.map(quantityChart));
  writeFlags();
  document.querySelector("#table thead").append(element("tr", {}, ...["Identifier", ...sample.positions, "Flags", ...page.quantities.map((q) => q.title)].map((t) => element("th", { scope: "col" }, t))));
  const paint = () => views.forEach((v) => v.paint());
  byId("good").addEventListener("change", (event) => { state.good = event.target.checked; paint(); update(); });
  byId("finger").hidden = state.draw;
  const drawing = (on) => { state.draw = on; views.forEach((v) => { v.chart.style.touchAction = on ? "none" : ""; }); };
  byId("draw").addEventListener("change", (event) => drawing(event.target.checked));
  drawing(state.draw);
  byId("clear").addEventListener("click", () => select(null));
  byId("previous-page").addEventListener("click", () => { state.first -= ROWS; writeRows(); });
  byId("next-page").addEventListener("click", () => { state.first += ROWS; writeRows(); });
  byId("download").addEventListener("click", () => Charts.save(csv(), "sample.csv", "text/csv"));
  paint();
  update();
  document.documentElement.dataset.ready = "yes";
})();
