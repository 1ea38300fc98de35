"use strict";
(async function () {
  const page = JSON.parse(document.getElementById("content").textContent);
  const galaxies = page.galaxies;
  const quantities = page.quantities;
  const total = galaxies.name.length;
  const arrays = await unpacked(page.arrays);
  const MISSING = 65535;
  const ROWS = 25;
  const MOSTLY_PRIOR = 0.5, INFORMED = 1.5;
  const byId = (id) => document.getElementById(id);
  const isFlagged = (k) => galaxies.codes[k].length > 0;
  const state = { brushed: null, rows: [], sort: null, down: false, first: 0, open: null };
  const coarse = matchMedia("(pointer: coarse)").matches;
  let source = null, writing = false;

  // ---- helpers

  async function unpacked(pack) {
    const packed = Uint8Array.from(atob(pack.data), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const buffer = await new Response(stream).arrayBuffer();
    const found = {};
    for (const [name, { type, offset, shape }] of Object.entries(pack.arrays)) {
      const size = shape.reduce((a, b) => a * b, 1);
      const kind = type === "uint8" ? Uint8Array : Uint16Array;
      found[name] = { values: new kind(buffer, offset, size), shape };
    }
    return found;
  }

  function element(tag, options = {}, ...children) {
    const made = document.createElement(tag);
    fill(made, options, children);
    return made;
  }

  function svg(tag, options = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    fill(made, options, children);
    return made;
  }

  function fill(made, options, children) {
    for (const [key, value] of Object.entries(options)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null));
  }

  const plural = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  const percent = (x) => `${Math.round(100 * x)}%`;

  function number(value, digits) {
    if (value === null || value === undefined) return "–";
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  }

  // Values are base-10 logarithms of line fluxes; people read fluxes.
  function shown(quantity, value) {
    if (value === null || value === undefined) return "–";
    if (!quantity.logarithmic) return number(value, quantity.digits);
    const flux = 10 ** value;
    return flux >= 100 ? flux.toFixed(0) : flux.toPrecision(2);
  }

  function interval(quantity, k) {
    const low = shown(quantity, galaxies[`${quantity.key}_low`][k]);
    const high = shown(quantity, galaxies[`${quantity.key}_high`][k]);
    return `${low} to ${high}`;
  }

  function bitsOf(quantity, k) {
    const bits = galaxies[`${quantity.key}_bits`];
    return bits ? bits[k] : null;
  }

  function grade(bits) {
    if (bits === null) return "";
    return bits < MOSTLY_PRIOR ? "mostly prior" : bits < INFORMED ? "partly informed" : "informed";
  }

  // ---- head of the page

  function writeHead() {
    const { about } = page;
    const flagged = galaxies.codes.filter((codes) => codes.length).length;
    byId("lead").textContent =
      `${plural(total, "galaxy", "galaxies")}. Their properties were estimated by a neural network ` +
      "from images or magnitudes, not measured on spectra. Every number is a median with a 68% " +
      `interval, from ${plural(about.draws, "random draw", "random draws")} of a joint posterior ` +
      "distribution. If the uncertainties are right, the true value lies inside the interval for " +
      "about two of three galaxies.";
    const listed = page.flags.slice(0, 4).map((f) => `${f.name} ${f.count.toLocaleString("en")}`);
    const warning = byId("warning");
    if (flagged) {
      warning.textContent =
        `Distrust ${flagged === total ? "all" : flagged.toLocaleString("en")} of ` +
        `${plural(total, "galaxy", "galaxies")}: they are flagged (▲), which means that the input ` +
        `is unlike what the network was trained on, or a part of it could not be used. ` +
        `Reasons: ${listed.join(", ")}${page.flags.length > 4 ? ", and others" : ""}.`;
    } else {
      warning.textContent = "No galaxy is flagged: nothing unusual was found in the input.";
      warning.classList.add("fine");
    }
    const guide = [
      "Select galaxies by drawing a box in any plot; the same galaxies are highlighted in all " +
        "plots and listed in the table. Click a point, or a name in the table, to see one galaxy.",
      "▲ Flagged galaxies: the result may be wrong for the reason given. ● Others.",
      "○ Hollow symbols and values in italics: the data add less than 0.5 bits to the prior. Such " +
        "a value is the typical one for galaxies of this kind rather than a measurement.",
      "Information is the Kullback-Leibler divergence of the posterior from the prior " +
        "(the galaxies that the network was trained on). One bit corresponds to half the uncertainty.",
      "Masses and star-formation rates assume a Chabrier initial mass function. Line fluxes are " +
        "those in an aperture of 3 arcsec, not corrected for dust in the galaxy.",
    ];
    if (about.known.length) guide.push(`Given as known, not inferred: ${about.known.join(", ")}.`);
    byId("guide").append(...guide.map((text) => element("li", {}, text)));
    const weights = about.model ? `Weights ${about.model}, version ${about.version}. ` : "";
    const state = about.calibrated ? "Recalibrated. " : "";
    byId("footer").textContent =
      `${weights}${state}Made with astrogenspec ${about.software} on ${about.date}. ` +
      "This page is complete in itself and sends nothing over the network.";
  }

  function share(grades) {
    const all = grades.reduce((a, b) => a + b, 0) || 1;
    const words = ["mostly prior", "partly informed", "informed"];
    const text = words.map((word, k) => `${word} ${percent(grades[k] / all)}`).join(", ");
    const bar = element("div", { class: "share", role: "img", "aria-label": text, title: text });
    grades.forEach((n, k) => {
      bar.append(element("span", { class: `k${k}`, style: `width:${(100 * n) / all}%` }));
    });
    return bar;
  }

  function median(values) {
    const sorted = values.filter((v) => v !== null).sort((a, b) => a - b);
    return sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
  }

  function writeSure() {
    const informed = quantities.some((q) => q.grades);
    const head = ["Quantity", "Typical uncertainty"];
    if (informed) head.push("Informed by the data");
    head.push("Values", "Unit");
    const table = byId("sure");
    table.append(element("thead", {}, element("tr", {}, ...head.map((t) => element("th", { scope: "col" }, t)))));
    const body = element("tbody");
    for (const q of quantities) {
      const values = galaxies[q.key].filter((v) => v !== null);
      const lows = galaxies[`${q.key}_low`], highs = galaxies[`${q.key}_high`];
      const half = median(lows.map((low, k) => (low === null ? null : (highs[k] - low) / 2)));
      const range = values.length
        ? `${shown(q, values.reduce((a, b) => Math.min(a, b)))} to ${shown(q, values.reduce((a, b) => Math.max(a, b)))}`
        : "–";
      const isDex = q.logarithmic || q.unit.startsWith("dex");
      const width = half === null ? "–" : q.logarithmic
        ? `factor ${(10 ** half).toFixed(1)}`
        : `± ${number(half, q.digits)}${isDex ? " dex" : ""}`;
      const cells = [
        element("th", { scope: "row", title: q.description }, q.title),
        element("td", { class: "number" }, width),
      ];
      if (informed) {
        cells.push(q.grades
          ? element("td", {}, share(q.grades), element("span", { class: "note" }, `${percent(q.grades[2] / (q.grades.reduce((a, b) => a + b, 0) || 1))} informed`))
          : element("td", {}, "–"));
      }
      cells.push(element("td", { class: "number" }, range), element("td", {}, q.unit || "–"));
      body.append(element("tr", {}, ...cells));
    }
    table.append(body);
    if (informed) {
      byId("sure-note").textContent =
        "Bars: full colour, informed (1.5 bits or more); hatched, partly informed; empty, mostly " +
        "prior. Where the bar is empty, do not use the value as a measurement.";
    }
  }

  function writeLegend() {
    const many = total > 60;
    const entries = [["good", "●", "no flag"], ["bad", "▲", "flagged"], ["good", "○", "mostly prior on the vertical axis"]];
    entries.push(["grey", many ? "✚" : "—", many ? "typical 68% intervals" : "68% intervals"]);
    byId("legend").append(...entries.map(([kind, mark, text]) => element("span", { class: kind, "data-mark": mark }, text)));
    byId("plots-note").textContent =
      (coarse ? "Tap a point to open its galaxy. " : "Draw a box in one plot to select galaxies in all; click a point to open its galaxy. ") +
      "The table below does the same with the keyboard." +
      ("bpt" in galaxies ? " In the BPT diagram, stars ionise the gas below the dashed curve (Kauffmann et al. 2003), and an active nucleus above the solid one (Kewley et al. 2001)." : "");
  }

  // ---- plots of all galaxies

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    return (name) => style.getPropertyValue(`--${name}`).trim();
  };

  function paint() {
    const get = colours();
    for (const root of Bokeh.documents[0].roots()) {
      root.background_fill_color = get("page");
      root.border_fill_color = get("page");
      root.outline_line_color = get("line");
      root.title.text_color = get("ink");
      for (const axis of [...root.below, ...root.left]) {
        axis.axis_label_text_color = get("ink");
        axis.major_label_text_color = get("soft");
        for (const key of ["axis_line_color", "major_tick_line_color", "minor_tick_line_color"]) axis[key] = get("soft");
        axis.axis_label_text_font_style = "normal";
      }
      for (const grid of root.center) if ("grid_line_color" in grid) grid.grid_line_color = get("line");
    }
  }

  async function drawPlots() {
    const plots = JSON.parse(byId("plots-json").textContent);
    const roots = plots.items[0].roots;
    for (const [key, id] of Object.entries(plots.places)) {
      const place = element("div", { id: roots[id], role: "img", "aria-label": `plot: ${key}; the table has the same values` });
      byId(key === "truth" ? "truth-plot" : "plots").append(place);
    }
    await Bokeh.embed.embed_items(plots.documents, plots.items);
    const model = Bokeh.documents[0];
    source = model.get_model_by_name("galaxies");
    source.data.name = galaxies.name;
    source.data.flag_words = galaxies.codes.map((codes) => codes.join(", ") || "none");
    if (coarse) {
      // A finger scrolls the page instead of drawing boxes.
      for (const root of model.roots()) root.toolbar.active_drag = null;
    }
    paint();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
    source.selected.change.connect(() => {
      if (writing) return;
      const indices = [...source.selected.indices];
      state.brushed = indices.length ? new Set(indices) : null;
      state.first = 0;
      update(false);
    });
    for (const root of model.roots()) {
      root.on_event("tap", () => setTimeout(() => {
        if (state.brushed && state.brushed.size >= 1 && state.brushed.size <= 3) openGalaxy([...state.brushed][0]);
      }));
    }
  }

  // ---- table

  function rowsShown() {
    const text = byId("search").value.trim().toLowerCase();
    const flag = byId("flag-filter").value;
    const key = byId("range-key").value;
    const low = parseFloat(byId("range-low").value), high = parseFloat(byId("range-high").value);
    const quantity = quantities.find((q) => q.key === key);
    const limited = quantity && (!isNaN(low) || !isNaN(high));
    const rows = [];
    for (let k = 0; k < total; k++) {
      if (state.brushed && !state.brushed.has(k)) continue;
      if (flag === "any" && !isFlagged(k)) continue;
      if (flag === "none" && isFlagged(k)) continue;
      if (flag.startsWith("flag:") && !galaxies.codes[k].includes(flag.slice(5))) continue;
      if (text && !`${galaxies.name[k]}\n${galaxies.flag[k]}\n${galaxies.codes[k].join(" ")}`.toLowerCase().includes(text)) continue;
      if (limited) {
        let value = galaxies[key][k];
        if (value === null) continue;
        if (quantity.logarithmic) value = 10 ** value;
        if (value < low || value > high) continue;
      }
      rows.push(k);
    }
    return sorted(rows);
  }

  function sorted(rows) {
    if (state.sort === null) return rows;
    const value = state.sort === "name" ? (k) => galaxies.name[k]
      : state.sort === "flag" ? (k) => galaxies.codes[k].length : (k) => galaxies[state.sort][k];
    const sign = state.down ? -1 : 1;
    return rows.sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      if (typeof x === "string") return sign * x.localeCompare(y, "en", { numeric: true }) || a - b;
      return sign * (x - y) || a - b;
    });
  }

  function writeTableHead() {
    const columns = [["name", "Name"], ["flag", "Flags"], ...quantities.map((q) => [q.key, q.title])];
    const row = element("tr");
    for (const [key, title] of columns) {
      const q = quantities.find((one) => one.key === key);
      const button = element("button", { type: "button", title: q ? q.description : `sort by ${title.toLowerCase()}`, onclick: () => {
        state.down = state.sort === key ? !state.down : key === "flag";
        state.sort = key;
        state.first = 0;
        update();
      } }, title);
      const head = element("th", { scope: "col", "data-key": key }, button);
      if (q && q.unit) head.append(element("div", { class: "interval" }, q.unit));
      row.append(head);
    }
    document.querySelector("#table thead").append(row);
  }

  function nameButton(k) {
    return element("button", { type: "button", class: "link", onclick: () => openGalaxy(k) }, galaxies.name[k]);
  }

  function valueCell(q, k) {
    const value = galaxies[q.key][k];
    const cell = element("td", { class: "number" });
    if (value === null) return cell.append("–"), cell;
    const bits = bitsOf(q, k);
    const weak = bits !== null && bits < MOSTLY_PRIOR;
    cell.append(element("span", weak ? { class: "weak", title: "the data add little to the prior" } : {}, shown(q, value)));
    cell.append(element("div", { class: "interval" }, interval(q, k)));
    return cell;
  }

  function writeRows() {
    for (const head of document.querySelectorAll("#table th[data-key]")) {
      if (head.dataset.key === state.sort) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const rows = state.rows.slice(state.first, state.first + ROWS).map((k) => {
      const flags = galaxies.flag[k] || galaxies.codes[k].join(", ");
      return element("tr", {},
        element("td", { class: "name" }, nameButton(k)),
        element("td", { class: "flag" }, flags ? `▲ ${flags.length > 120 ? `${flags.slice(0, 119)}…` : flags}` : ""),
        ...quantities.map((q) => valueCell(q, k)));
    });
    document.querySelector("#table tbody").replaceChildren(...rows);
    const pages = Math.max(1, Math.ceil(state.rows.length / ROWS));
    byId("page-number").textContent = `Page ${Math.floor(state.first / ROWS) + 1} of ${pages}`;
    byId("previous-page").disabled = state.first === 0;
    byId("next-page").disabled = state.first + ROWS >= state.rows.length;
  }

  function update(select = true) {
    state.rows = rowsShown();
    byId("shown").textContent = state.rows.length === total
      ? `All ${plural(total, "galaxy", "galaxies")}.`
      : `${state.rows.length.toLocaleString("en")} of ${plural(total, "galaxy", "galaxies")}` +
        `${state.brushed ? " (selected in a plot)" : ""}.`;
    writeRows();
    if (select && source) {
      writing = true;
      source.selected.indices = state.rows.length === total ? [] : [...state.rows];
      writing = false;
    }
  }

  function writeFilters() {
    const flags = [["", "all galaxies"], ["none", "without flags"], ["any", "flagged"]];
    for (const { name, count } of page.flags) flags.push([`flag:${name}`, `${name} (${count})`]);
    byId("flag-filter").append(...flags.map(([value, text]) => element("option", { value }, text)));
    byId("range-key").append(...quantities.map((q) => element("option", { value: q.key }, q.title)));
    const again = () => { state.first = 0; update(); };
    byId("filters").addEventListener("input", again);
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("reset", () => setTimeout(() => { state.brushed = null; again(); }));
    byId("previous-page").addEventListener("click", () => { state.first -= ROWS; writeRows(); });
    byId("next-page").addEventListener("click", () => { state.first += ROWS; writeRows(); });
    byId("download").addEventListener("click", download);
  }

  // ---- download

  function csv() {
    const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const number = (q, value) => (value === null ? "" : q.logarithmic ? Number((10 ** value).toPrecision(6)) : value);
    const head = ["name"];
    for (const q of quantities) {
      head.push(`${q.key}_median`, `${q.key}_p16`, `${q.key}_p84`);
      if (galaxies[`${q.key}_bits`]) head.push(`${q.key}_information`);
    }
    const lines = state.rows.map((k) => {
      const cells = [quoted(galaxies.name[k])];
      for (const q of quantities) {
        for (const suffix of ["", "_low", "_high"]) cells.push(number(q, galaxies[q.key + suffix][k]));
        if (galaxies[`${q.key}_bits`]) cells.push(bitsOf(q, k) ?? "");
      }
      return [...cells, quoted(galaxies.codes[k].join(" | ")), quoted(galaxies.flag[k])].join(",");
    });
    return [[...head, "flags", "flag"].join(","), ...lines].join("\r\n") + "\r\n";
  }

  function download() {
    const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    const link = element("a", { href: address, download: "galaxies.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  // ---- one galaxy

  function draws(index, k) {
    const { values, shape } = arrays.draws;
    const q = quantities[index], n = shape[2], start = (index * shape[1] + k) * n;
    return Array.from(values.subarray(start, start + n), (code) =>
      code === MISSING ? null : q.low + (code / (MISSING - 1)) * (q.high - q.low));
  }

  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-6; t += step) found.push([t, number(Math.abs(t) < step / 1e6 ? 0 : t, digits)]);
    return found;
  }

  function histogram(index, k) {
    const q = quantities[index], W = 240, H = 118, left = 8, right = 232, base = 92, top = 22;
    const X = (v) => left + ((v - q.low) / (q.high - q.low)) * (right - left);
    const { values, shape } = arrays.histograms;
    const counts = values.subarray((index * shape[1] + k) * shape[2], (index * shape[1] + k + 1) * shape[2]);
    const Y = (share) => base - share * (base - top);
    const outline = (heights) => {
      const step = (right - left) / heights.length;
      return `M${left},${base}` + heights.map((h, i) => `V${Y(h).toFixed(1)}H${(left + (i + 1) * step).toFixed(1)}`).join("") + `V${base}Z`;
    };
    const middle = galaxies[q.key][k], truth = page.truth?.values[q.key]?.[k] ?? null;
    const words = middle === null ? "no draws" : `${shown(q, middle)}, 68% interval ${interval(q, k)} ${q.unit}`;
    const chart = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img", "aria-label": `${q.title}: ${words}` });
    if (q.prior) chart.append(svg("path", { class: "prior", d: outline(q.prior) }));
    if (middle !== null) {
      chart.append(svg("path", { class: "post", d: outline(Array.from(counts, (c) => c / 255)) }));
      chart.append(svg("line", { class: "band", x1: X(galaxies[`${q.key}_low`][k]), x2: X(galaxies[`${q.key}_high`][k]), y1: base + 3, y2: base + 3 }));
      chart.append(svg("circle", { class: "mid", cx: X(middle), cy: base + 3, r: 3.5 }));
    }
    if (truth !== null) chart.append(svg("line", { class: "truth", x1: X(truth), x2: X(truth), y1: top - 4, y2: base }));
    chart.append(svg("line", { class: "axis", x1: left, x2: right, y1: base, y2: base }));
    for (const [t, text] of ticks(q.low, q.high, 4)) chart.append(svg("text", { x: X(t), y: base + 18, "text-anchor": "middle" }, text));
    chart.append(svg("text", { class: "head", x: left, y: 12 }, q.axis));
    return chart;
  }

  function picture(found, caption, k) {
    const [w, h] = found.size;
    const overlay = svg("svg", { viewBox: `0 0 100 ${(100 * h) / w}`, "aria-hidden": "true" });
    const bottom = (100 * h) / w;
    const line = (x1, y1, x2, y2) => [["#000", 2.4], ["#fff", 1]].map(([stroke, width]) => svg("line", { x1, y1, x2, y2, stroke, "stroke-width": width }));
    const label = (x, y, text, anchor = "start") => svg("text", { x, y, fill: "#fff", stroke: "#000", "stroke-width": 0.8, "paint-order": "stroke", "font-size": 5.5, "text-anchor": anchor, "font-family": "system-ui, sans-serif" }, text);
    if (found.scale) {
      const field = found.scale * w;
      const length = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600].filter((b) => b <= field / 3).pop() ?? 0.1;
      const bar = (100 * length) / field;
      overlay.append(...line(6, bottom - 7, 6 + bar, bottom - 7), label(6, bottom - 10, `${length}″`));
    }
    if (found.north && found.east) {
      for (const [direction, name] of [[found.north, "N"], [found.east, "E"]]) {
        const [dx, dy] = direction;
        const x = 82, y = bottom - 18;
        overlay.append(...line(x, y, x + 10 * dx, y + 10 * dy), label(x + 14 * dx, y + 2 + 14 * dy, name, "middle"));
      }
    }
    return element("figure", {},
      element("div", { class: "picture" },
        element("img", { src: found.data, width: w, height: h, alt: `${caption} of ${galaxies.name[k]}` }), overlay),
      element("figcaption", {}, caption === "Colour image" && !found.north ? "Colour image; its orientation on the sky is not known" : caption));
  }

  function valuesTable(k) {
    const truth = page.truth?.values;
    const head = ["Quantity", "Median", "68% interval", "Unit", "Information"];
    if (truth) head.push("True value");
    const table = element("table", { class: "values" }, element("thead", {}, element("tr", {}, ...head.map((t) => element("th", { scope: "col" }, t)))));
    const body = element("tbody");
    for (const q of quantities) {
      const bits = bitsOf(q, k), weak = bits !== null && bits < MOSTLY_PRIOR;
      const cells = [
        element("th", { scope: "row", title: q.description }, q.title),
        element("td", { class: "number" }, element("span", weak ? { class: "weak" } : {}, shown(q, galaxies[q.key][k]))),
        element("td", { class: "number" }, galaxies[q.key][k] === null ? "–" : interval(q, k)),
        element("td", {}, q.unit),
        element("td", {}, bits === null ? "–" : `${number(bits, 2)} bits, ${grade(bits)}`),
      ];
      if (truth) cells.push(element("td", { class: "number" }, shown(q, truth[q.key]?.[k] ?? null)));
      body.append(element("tr", {}, ...cells));
    }
    table.append(body);
    return element("div", { class: "wide" }, table);
  }

  const chosen = quantities.length > 2 ? [0, 1, 2] : quantities.map((_, i) => i);

  function cornerChart(k) {
    const n = chosen.length, side = 130, gap = 8, left = 46, top = 6, size = left + n * (side + gap);
    const chart = svg("svg", { viewBox: `0 0 ${size} ${size + 34 - left + 10}`, class: "chart", role: "img", "aria-label": `joint distribution of ${chosen.map((c) => quantities[c].title).join(", ")}` });
    const data = chosen.map((c) => draws(c, k));
    const limits = data.map((values) => {
      const finite = values.filter((v) => v !== null);
      const low = Math.min(...finite), high = Math.max(...finite), pad = 0.06 * (high - low) || 0.05;
      return [low - pad, high + pad];
    });
    for (let row = 0; row < n; row++) {
      for (let column = 0; column <= row; column++) {
        const x0 = left + column * (side + gap), y0 = top + row * (side + gap);
        const [xl, xh] = limits[column], [yl, yh] = limits[row];
        const X = (v) => x0 + ((v - xl) / (xh - xl)) * side, Y = (v) => y0 + side - ((v - yl) / (yh - yl)) * side;
        if (row === column) {
          const bins = new Array(16).fill(0);
          for (const v of data[row]) if (v !== null) bins[Math.min(15, Math.floor((16 * (v - xl)) / (xh - xl)))]++;
          const most = Math.max(...bins, 1);
          bins.forEach((b, i) => chart.append(svg("rect", { class: "post", x: x0 + (i * side) / 16, width: side / 16 - 0.5, y: y0 + side - (0.95 * side * b) / most, height: (0.95 * side * b) / most })));
        } else {
          data[column].forEach((v, i) => { if (v !== null && data[row][i] !== null) chart.append(svg("circle", { class: "dot", cx: X(v).toFixed(1), cy: Y(data[row][i]).toFixed(1), r: 1.7 })); });
        }
        const tx = page.truth?.values[quantities[chosen[column]].key]?.[k] ?? null;
        if (tx !== null && tx > xl && tx < xh) chart.append(svg("line", { class: "truth", x1: X(tx), x2: X(tx), y1: y0, y2: y0 + side }));
        const ty = page.truth?.values[quantities[chosen[row]].key]?.[k] ?? null;
        if (row !== column && ty !== null && ty > yl && ty < yh) chart.append(svg("line", { class: "truth", x1: x0, x2: x0 + side, y1: Y(ty), y2: Y(ty) }));
        chart.append(svg("rect", { class: "axis", x: x0, y: y0, width: side, height: side }));
        if (row === n - 1) {
          for (const [t, text] of ticks(xl, xh, 3)) chart.append(svg("text", { x: X(t), y: y0 + side + 13, "text-anchor": "middle" }, text));
          chart.append(svg("text", { class: "head", x: x0 + side / 2, y: y0 + side + 28, "text-anchor": "middle", "font-size": 10 }, quantities[chosen[column]].title));
        }
        if (column === 0 && row > 0) {
          for (const [t, text] of ticks(yl, yh, 3)) chart.append(svg("text", { x: x0 - 4, y: Y(t) + 4, "text-anchor": "end" }, text));
          chart.append(svg("text", { class: "head", transform: `translate(${x0 - 34},${y0 + side / 2}) rotate(-90)`, "text-anchor": "middle" }, quantities[chosen[row]].title));
        }
      }
    }
    return chart;
  }

  function cornerPart(k) {
    const place = element("div");
    const draw = () => place.replaceChildren(cornerChart(k));
    const choices = element("div", { class: "choices" });
    ["First", "Second", "Third"].slice(0, chosen.length).forEach((word, at) => {
      const select = element("select", { onchange: (event) => { chosen[at] = Number(event.target.value); draw(); } });
      quantities.forEach((q, i) => select.append(element("option", i === chosen[at] ? { value: i, selected: "" } : { value: i }, q.title)));
      choices.append(element("label", {}, `${word} quantity `, select));
    });
    choices.append(element("p", { class: "note" }, `${arrays.draws.shape[2]} of ${page.about.draws} draws. Line fluxes are shown as base-10 logarithms.`));
    draw();
    return element("div", { class: "corner" }, choices, place);
  }

  function spectrumChart(k) {
    const s = page.spectra, { values, shape } = arrays.spectra;
    const [low, high] = s.limits[k];
    const curve = (i) => Array.from(values.subarray((k * shape[1] + i) * shape[2], (k * shape[1] + i + 1) * shape[2]), (c) => (c === MISSING ? null : low + (c / (MISSING - 1)) * (high - low)));
    const curves = Array.from({ length: shape[1] }, (_, i) => curve(i));
    const best = curves[0], [p2, p16, p50, p84, p97] = curves.slice(1);
    const main = p50 ?? best;
    const finite = main.filter((v) => v !== null).sort((a, b) => a - b);
    if (!finite.length) return element("p", {}, "No spectrum was generated for this galaxy.");
    const W = 1000, H = 380, left = 52, right = 992, top = 96, base = 336;
    const w = s.wavelength, X = (v) => left + ((v - w[0]) / (w[w.length - 1] - w[0])) * (right - left);
    const ceiling = Math.max(Math.min(Math.max(...best.filter((v) => v !== null), ...(p97 ?? []).filter((v) => v !== null)), 2.5 * Math.abs(finite[Math.floor(0.95 * finite.length)])), finite[finite.length - 1] * 0.6, 1e-6);
    const floor = Math.min(0, finite[Math.floor(0.01 * finite.length)]);
    const Y = (v) => base - ((Math.min(Math.max(v, floor), ceiling * 1.05) - floor) / (ceiling * 1.05 - floor)) * (base - top);
    const path = (ys) => { let d = "", pen = "M"; ys.forEach((y, i) => { if (y === null) { pen = "M"; return; } d += `${pen}${X(w[i]).toFixed(1)},${Y(y).toFixed(1)}`; pen = "L"; }); return d; };
    const ribbon = (a, b) => { const seen = a.map((y, i) => i).filter((i) => a[i] !== null && b[i] !== null); return seen.length ? "M" + seen.map((i) => `${X(w[i]).toFixed(1)},${Y(a[i]).toFixed(1)}`).join("L") + "L" + seen.reverse().map((i) => `${X(w[i]).toFixed(1)},${Y(b[i]).toFixed(1)}`).join("L") + "Z" : ""; };
    const chart = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img", "aria-label": `generated spectrum of ${galaxies.name[k]}` });
    for (const [t, text] of ticks(floor, ceiling, 4)) chart.append(svg("line", { class: "grid", x1: left, x2: right, y1: Y(t), y2: Y(t) }), svg("text", { x: left - 6, y: Y(t) + 4, "text-anchor": "end" }, text));
    for (const [a, b] of s.not_trusted[k]) chart.append(svg("rect", { class: "doubt", x: X(w[a]), width: Math.max(1, X(w[b]) - X(w[a])), y: top, height: base - top }));
    if (p50) chart.append(svg("path", { class: "r95", d: ribbon(p2, p97) }), svg("path", { class: "r68", d: ribbon(p16, p84) }));
    const z = s.rest ? 0 : s.redshift[k];
    if (z !== null) {
      for (const [name, rest] of page.lines) {
        const at = rest * (1 + z);
        if (at < w[0] || at > w[w.length - 1]) continue;
        chart.append(svg("line", { class: "mark", x1: X(at), x2: X(at), y1: top, y2: base }));
        chart.append(svg("text", { transform: `translate(${X(at) + 4},${top - 5}) rotate(-90)` }, name));
      }
    }
    if (p50) chart.append(svg("path", { class: "median", d: path(p50) }));
    chart.append(svg("path", { class: "best", d: path(best) }));
    chart.append(svg("line", { class: "axis", x1: left, x2: right, y1: base, y2: base }));
    for (const [t, text] of ticks(w[0], w[w.length - 1], 6)) chart.append(svg("text", { x: X(t), y: base + 16, "text-anchor": "middle" }, text));
    chart.append(svg("text", { class: "head", x: (left + right) / 2, y: base + 36, "text-anchor": "middle" }, `${s.rest ? "rest-frame" : "observed"} vacuum wavelength [Å]`));
    chart.append(svg("text", { class: "head", transform: `translate(12,${(top + base) / 2}) rotate(-90)`, "text-anchor": "middle" }, "flux density [1e-17 erg/s/cm²/Å]"));
    return chart;
  }

  function spectrumPart(k) {
    const s = page.spectra;
    const z = s.redshift[k];
    const words = [
      `Generated, not observed: ${plural(s.draws, "draw", "draws")}${s.aperture ? `, ${s.aperture === "fibre" ? "aperture of 3 arcsec" : "total flux"}` : ""}.`,
      "Thin line: median; shaded: 68% and 95% of the draws; orange: the best draw.",
      z !== null && !s.rest ? `Lines are marked at z = ${number(z, 4)}, the redshift of the best draw.` : "",
      s.not_trusted[k].length ? "Grey: wavelengths that the model does not cover." : "",
      s.binned > 1 ? `Averaged over ${s.binned} pixels.` : "",
    ];
    return element("div", {}, element("div", { class: "wide" }, element("div", { style: "min-width:52rem" }, spectrumChart(k))), element("p", { class: "note" }, words.filter(Boolean).join(" ")));
  }

  function flagsPart(k) {
    if (!isFlagged(k) && !galaxies.flag[k]) {
      return element("p", { class: "callout fine" }, "No flag: nothing unusual was found in the input.");
    }
    const reasons = (galaxies.flag[k] || "no text").split("; ");
    return element("div", { class: "callout" },
      element("strong", {}, "▲ Distrust this galaxy:"),
      element("ul", {}, ...reasons.map((text) => element("li", {}, text))),
      element("span", { class: "note" }, `Flags: ${galaxies.codes[k].join(", ")}`));
  }

  function weakNote(k) {
    const weak = quantities.filter((q) => { const b = bitsOf(q, k); return b !== null && b < MOSTLY_PRIOR; });
    if (!weak.length) return null;
    return element("p", {}, `The data say little about ${weak.map((q) => q.title).join(", ")}: these values are those of the prior.`);
  }

  function openGalaxy(k) {
    state.open = k;
    const body = byId("galaxy-body");
    byId("galaxy-name").textContent = galaxies.name[k];
    const top = element("div", { class: "top" });
    const pictures = element("div", { class: "pictures" });
    const image = page.pictures?.image?.[k], rebuilt = page.pictures?.reconstruction?.[k];
    if (image) pictures.append(picture(image, "Colour image", k));
    if (rebuilt) pictures.append(picture(rebuilt, "Reconstruction by the network", k));
    if (pictures.children.length) top.append(pictures);
    top.append(valuesTable(k));
    const parts = [flagsPart(k), weakNote(k), top];
    if (galaxies.usable[k]) {
      const legend = `Blue: this galaxy; grey: the prior, that is, all galaxies of the training. Dot and bar: median and 68% interval.${page.truth ? " Dashed: true value." : ""}`;
      parts.push(element("h3", {}, "What is known about each quantity"), element("p", { class: "note" }, legend),
        element("div", { class: "small" }, ...quantities.map((_, i) => histogram(i, k))));
      if (page.spectra) parts.push(element("h3", {}, "Spectrum"), spectrumPart(k));
      if (chosen.length > 1) parts.push(element("h3", {}, "Joint distribution of any three quantities"), cornerPart(k));
    }
    body.replaceChildren(...parts.filter((part) => part !== null));
    const at = state.rows.indexOf(k);
    byId("previous-galaxy").disabled = at <= 0;
    byId("next-galaxy").disabled = at < 0 || at >= state.rows.length - 1;
    const dialog = byId("galaxy");
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    byId("galaxy-name").focus();
  }

  function step(by) {
    const next = state.rows[state.rows.indexOf(state.open) + by];
    if (state.rows.includes(state.open) && next !== undefined) openGalaxy(next);
  }

  function connectDialog() {
    byId("close-galaxy").addEventListener("click", () => byId("galaxy").close());
    byId("previous-galaxy").addEventListener("click", () => step(-1));
    byId("next-galaxy").addEventListener("click", () => step(1));
    byId("galaxy").addEventListener("keydown", (event) => {
      if (event.target.tagName === "SELECT") return;
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    });
  }

  // ---- true values

  function writeTruth() {
    if (!page.truth) return;
    byId("truth-section").hidden = false;
    byId("truth-note").textContent =
      "Errors of the median, and calibration: the 68% interval should contain 68% of the true values. " +
      "Bias and scatter of line fluxes are in dex.";
    const names = Object.keys(page.truth.values);
    const described = (key) => quantities.find((q) => q.key === key);
    const select = byId("truth-quantity");
    select.append(...names.map((key) => element("option", { value: key }, described(key).title)));
    select.addEventListener("change", () => showTruth(described(select.value)));
    const heads = { quantity: "Quantity", n: "Galaxies", bias: "Bias", scatter: "Scatter", coverage_68: "In the 68% interval", coverage_95: "In the 95% interval", pit_ks: "PIT KS", crps: "CRPS" };
    const table = byId("scores");
    table.append(element("thead", {}, element("tr", {}, ...Object.values(heads).map((t) => element("th", { scope: "col" }, t)))));
    table.append(element("tbody", {}, ...page.truth.scores.map((row) => element("tr", {}, ...Object.keys(heads).map((key) => {
      if (key === "quantity") return element("th", { scope: "row" }, described(row.quantity).title);
      const value = row[key];
      const text = value === null ? "–" : key === "n" ? value.toLocaleString("en") : key.startsWith("coverage") ? percent(value) : number(value, 3);
      return element("td", { class: "number" }, text);
    })))));
    const list = element("ol", {}, ...page.truth.worst.map(({ galaxy, quantity, sigma }) => {
      const q = described(quantity);
      return element("li", {}, nameButton(galaxy), ` ${q.title} ${shown(q, galaxies[quantity][galaxy])}, true value ${shown(q, page.truth.values[quantity][galaxy])}: too ${sigma < 0 ? "low" : "high"} by ${number(Math.abs(sigma), 1)} uncertainties`, isFlagged(galaxy) ? " (▲ flagged)" : "");
    }));
    byId("worst").append(element("h3", {}, "Largest errors, in units of the uncertainty"), list);
  }

  function showTruth(q) {
    const model = Bokeh.documents[0];
    const plot = model.roots().find((root) => root.id === JSON.parse(byId("plots-json").textContent).places.truth);
    const both = [...galaxies[q.key], ...page.truth.values[q.key]].filter((v) => v !== null);
    const low = both.reduce((a, b) => Math.min(a, b)), high = both.reduce((a, b) => Math.max(a, b));
    const pad = 0.06 * (high - low) || 0.5;
    plot.x_range.setv({ start: low - pad, end: high + pad });
    plot.y_range.setv({ start: low - pad, end: high + pad });
    plot.below[0].axis_label = `true ${q.axis}`;
    plot.left[0].axis_label = `predicted ${q.axis}`;
    for (const renderer of plot.renderers) {
      for (const glyph of [renderer.glyph, renderer.selection_glyph, renderer.nonselection_glyph, renderer.muted_glyph, renderer.hover_glyph]) {
        if (!glyph || typeof glyph === "string") continue;
        if (renderer.name === "points") glyph.setv({ x: { field: `${q.key}_true` }, y: { field: q.key } });
        if (renderer.name === "truth bars") glyph.setv({ x0: { field: `${q.key}_true` }, x1: { field: `${q.key}_true` }, y0: { field: `${q.key}_low` }, y1: { field: `${q.key}_high` } });
      }
    }
  }

  writeHead();
  writeSure();
  writeLegend();
  writeFilters();
  writeTableHead();
  writeTruth();
  connectDialog();
  await drawPlots();
  update();
  document.documentElement.dataset.ready = "yes";
})();
