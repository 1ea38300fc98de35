"use strict";
(async function () {
  const page = JSON.parse(document.getElementById("content").textContent);
  const galaxies = page.galaxies;
  const quantities = page.quantities;
  const total = galaxies.name.length;
  const { element, plural, percent, number, MOSTLY_PRIOR } = Charts;
  const view = await Charts.open(page);
  const { isFlagged, shown, interval, bitsOf } = view;
  const ROWS = 25;
  const byId = (id) => document.getElementById(id);
  const state = { brushed: null, rows: [], sort: null, down: false, first: 0, open: null, cursor: null };
  const coarse = matchMedia("(pointer: coarse)").matches;
  let source = null, writing = false;

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
    writeCards(flagged);
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

  // Four numbers that say the most about the result.
  function writeCards(flagged) {
    const card = (value, words, kind = "") => element("div", { class: `stat ${kind}` }, element("strong", {}, value), element("span", {}, words));
    const cards = [
      card(total.toLocaleString("en"), total === 1 ? "galaxy" : "galaxies"),
      card(`${flagged ? "▲ " : ""}${percent(flagged / total)}`, flagged ? `flagged: distrust ${flagged.toLocaleString("en")}` : "flagged: none", flagged ? "doubtful" : ""),
    ];
    for (const key of ["redshift", "stellar_mass", "sfr"]) {
      const q = quantities.find((one) => one.key === key);
      const half = q ? typical(q) : null;
      if (half !== null) cards.push(card(uncertainty(q, half), `typical uncertainty of ${q.title === "Star-formation rate" ? "the star-formation rate" : q.title.toLowerCase()}`));
    }
    byId("cards").append(...cards);
  }

  function typical(q) {
    const lows = galaxies[`${q.key}_low`], highs = galaxies[`${q.key}_high`];
    return median(lows.map((low, k) => (low === null ? null : (highs[k] - low) / 2)));
  }

  function uncertainty(q, half) {
    if (half === null) return "–";
    if (q.logarithmic) return `factor ${(10 ** half).toFixed(1)}`;
    return `± ${number(half, q.digits)}${q.unit.startsWith("dex") ? " dex" : ""}`;
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
      const range = values.length
        ? `${shown(q, values.reduce((a, b) => Math.min(a, b)))} to ${shown(q, values.reduce((a, b) => Math.max(a, b)))}`
        : "–";
      const cells = [
        element("th", { scope: "row", title: q.description }, q.title),
        element("td", { class: "number" }, uncertainty(q, typical(q))),
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
      "With the keyboard: arrow keys in a plot go from galaxy to galaxy, Enter opens one, Space selects it." +
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
      const place = element("div", { id: roots[id], class: "plot", tabindex: "0", role: "application", "aria-label": `plot ${key}: arrow keys go from galaxy to galaxy, Enter opens one, Space selects it; the table has the same values` });
      byId(key === "truth" ? "truth-plot" : "plots").append(place);
      place.addEventListener("keydown", (event) => moveCursor(event, place, id));
      place.addEventListener("focusout", () => place.querySelector(".ring")?.remove());
    }
    await Bokeh.embed.embed_items(plots.documents, plots.items);
    const model = Bokeh.documents[0];
    source = model.get_model_by_name("galaxies");
    source.data.name = galaxies.name;
    source.data.flag_words = galaxies.codes.map((codes) => codes.join(", ") || "none");
    for (const root of model.roots()) root.toolbar.autohide = !coarse;
    if (coarse) connectFinger(model);
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

  // On a touch screen a finger scrolls the page, or draws boxes if the button is pressed.
  function connectFinger(model) {
    const button = byId("finger");
    const tools = model.roots().map((root) => [root.toolbar, root.toolbar.active_drag === "auto" ? null : root.toolbar.active_drag]);
    const draw = (on) => {
      button.setAttribute("aria-pressed", on);
      button.textContent = on ? "Scroll with a finger" : "Draw boxes with a finger";
      for (const [toolbar, drag] of tools) toolbar.active_drag = on ? drag : null;
      for (const [, drag] of tools) if (drag) drag.active = on;
    };
    button.hidden = false;
    button.addEventListener("click", () => draw(button.getAttribute("aria-pressed") !== "true"));
    draw(false);
  }

  // The cursor of the keyboard: from galaxy to galaxy, by their place on the horizontal axis.
  function moveCursor(event, place, id) {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!step && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (event.key === "Enter" && state.cursor !== null) return openGalaxy(state.cursor);
    if (event.key === " ") {
      const chosen = new Set(state.brushed ?? []);
      if (state.cursor === null) return;
      if (!chosen.delete(state.cursor)) chosen.add(state.cursor);
      source.selected.indices = [...chosen];
      return;
    }
    const plot = Bokeh.documents[0].get_model_by_id(id);
    const glyph = plot.renderers.find((renderer) => renderer.name === "points").glyph;
    const x = source.data[glyph.x.field], y = source.data[glyph.y.field];
    const order = Array.from({ length: total }, (_, k) => k).filter((k) => Number.isFinite(x[k]) && Number.isFinite(y[k])).sort((a, b) => x[a] - x[b] || a - b);
    if (!order.length) return;
    const at = order.indexOf(state.cursor);
    state.cursor = order[at < 0 ? (step > 0 ? 0 : order.length - 1) : Math.min(order.length - 1, Math.max(0, at + step))];
    showCursor(place, plot, x[state.cursor], y[state.cursor]);
  }

  function showCursor(place, plot, x, y) {
    const { frame, el } = Bokeh.index.get_by_id(plot.id);
    const outer = place.getBoundingClientRect(), inner = el.getBoundingClientRect();
    const ring = place.querySelector(".ring") ?? element("div", { class: "ring", "aria-hidden": "true" });
    place.append(ring);
    ring.style.left = `${inner.x - outer.x + frame.x_scale.compute(x)}px`;
    ring.style.top = `${inner.y - outer.y + frame.y_scale.compute(y)}px`;
    byId("cursor").textContent = `${galaxies.name[state.cursor]}: ${plot.below[0].axis_label} ${number(x, 3)}, ${plot.left[0].axis_label} ${number(y, 3)}${isFlagged(state.cursor) ? ", flagged" : ""}`;
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
        update(false);
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

  function thumbnail(k) {
    const image = page.pictures?.image?.[k];
    return image ? element("img", { src: image.data, alt: "", class: "thumbnail", onclick: () => openGalaxy(k) }) : null;
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
        element("td", { class: "name" }, element("div", { class: "named" }, thumbnail(k), nameButton(k))),
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

  const download = () => Charts.save(csv(), "galaxies.csv", "text/csv");

  // ---- one galaxy

  function openGalaxy(k) {
    state.open = k;
    const body = byId("galaxy-body");
    byId("galaxy-name").textContent = galaxies.name[k];
    body.replaceChildren(...view.body(k));
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
