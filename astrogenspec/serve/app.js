"use strict";
(async function () {
  const { element, number, MOSTLY_PRIOR } = Charts;
  const byId = (id) => document.getElementById(id);
  // Magnitudes of a typical galaxy of SDSS, as an example of what to type.
  const TYPICAL = { sdss: { u: 19.4, g: 17.8, r: 17.1, i: 16.8, z: 16.6 } };
  const ROWS = 200;
  const state = { answer: null, view: null, row: 0, known: {}, changed: null, asked: 0, spectrum: false };
  let start = null;

  // ---- requests; addresses are relative, so that the page works under any path

  async function ask(path, body) {
    const options = body === undefined ? {} : body instanceof FormData
      ? { method: "POST", body }
      : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
    let reply;
    try {
      reply = await fetch(path, options);
    } catch {
      throw new Error("The server does not answer. The files may be larger than it accepts, or it was stopped.");
    }
    const found = await reply.json();
    if (!reply.ok) throw new Error(found.error);
    return found;
  }

  const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  function fail(error) {
    const place = byId("problem");
    place.hidden = false;
    place.textContent = sentence(error.message);
    byId("status").textContent = "";
  }

  async function working(words, work) {
    byId("problem").hidden = true;
    byId("status").textContent = words;
    byId("result").classList.add("busy");
    try {
      await work();
      byId("status").textContent = "";
    } catch (error) {
      fail(error);
    } finally {
      byId("result").classList.remove("busy");
    }
  }

  // ---- input

  function writeForms() {
    const options = start.surveys.map((s) => element("option", { value: s.name }, s.title));
    byId("survey").append(...options);
    byId("files-survey").append(element("option", { value: "" }, "recognise it, or SDSS"), ...options.map((o) => o.cloneNode(true)));
    byId("survey").addEventListener("change", writeBands);
    writeBands();
    const megabytes = Math.round(start.max_upload / 1e6);
    byId("files-note").textContent = `A table of photometry, or FITS images (one file with all bands, or one file for each band). At most ${megabytes} MB and ${start.max_galaxies} galaxies. Endings: ${start.endings.join(", ")}. Files are deleted after they are read.`;
    byId("files").setAttribute("accept", start.endings.join(","));
    byId("panel-type").addEventListener("submit", (event) => { event.preventDefault(); inferTyped(); });
    byId("panel-files").addEventListener("submit", (event) => event.preventDefault());
    byId("files").addEventListener("change", (event) => { inferFiles([...event.target.files]); event.target.value = ""; });
    byId("example").addEventListener("click", () => working("", () => show(start.example)));
    connectTabs();
    connectDrop();
  }

  function writeBands() {
    const survey = start.surveys.find((s) => s.name === byId("survey").value);
    const typical = TYPICAL[survey.name] ?? {};
    byId("bands").replaceChildren(...survey.bands.map((band) => element("tr", {},
      element("th", { scope: "row" }, band),
      element("td", {}, element("input", { type: "number", step: "any", "data-band": band, "aria-label": `magnitude in ${band}`, value: typical[band] ?? null })),
      element("td", {}, element("input", { type: "number", step: "any", min: "0", "data-error": band, "aria-label": `error in ${band}`, value: 0.05 })))));
  }

  function connectTabs() {
    const tabs = ["type", "files"].map((key) => byId(`tab-${key}`));
    const choose = (chosen) => tabs.forEach((tab) => {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !on;
    });
    tabs.forEach((tab, at) => {
      tab.addEventListener("click", () => choose(tab));
      tab.addEventListener("keydown", (event) => {
        if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
        const other = tabs[1 - at];
        choose(other);
        other.focus();
      });
    });
  }

  // Files can be dropped anywhere on the page.
  function connectDrop() {
    const drop = byId("drop");
    const over = (on) => (event) => { event.preventDefault(); drop.classList.toggle("over", on); };
    document.addEventListener("dragover", over(true));
    document.addEventListener("dragleave", over(false));
    document.addEventListener("drop", (event) => {
      over(false)(event);
      if (event.dataTransfer.files.length) { byId("tab-files").click(); inferFiles([...event.dataTransfer.files]); }
    });
  }

  function inferTyped() {
    const magnitudes = {};
    for (const input of document.querySelectorAll("#bands input[data-band]")) {
      const error = document.querySelector(`#bands input[data-error="${input.dataset.band}"]`);
      if (input.value !== "") magnitudes[input.dataset.band] = [input.valueAsNumber, error.valueAsNumber];
    }
    const form = new FormData();
    form.append("survey", byId("survey").value);
    form.append("ebv", byId("ebv").value);
    form.append("magnitudes", JSON.stringify(magnitudes));
    return working("Inferring …", async () => show(await ask("api/infer", form)));
  }

  function inferFiles(files) {
    const size = files.reduce((sum, file) => sum + file.size, 0);
    const form = new FormData();
    files.forEach((file) => form.append("files", file, file.name));
    form.append("survey", byId("files-survey").value);
    form.append("ebv", byId("files-ebv").value);
    const words = files.length === 1 ? files[0].name : `${files.length} files`;
    return working(`Inferring ${words} …`, async () => {
      if (size > 0.98 * start.max_upload) throw new Error(`${words}: ${(size / 1e6).toFixed(1)} MB is more than this server accepts (${start.max_upload / 1e6} MB).`);
      await show(await ask("api/infer", form));
    });
  }

  // ---- result

  async function show(answer) {
    state.answer = answer;
    state.view = await Charts.open(answer.content);
    byId("notes").replaceChildren(...answer.notes.map((text) => element("p", { class: "note" }, `Note: ${sentence(text)}`)));
    writeMany();
    writeDownloads();
    openGalaxy(0);
  }

  function writeMany() {
    const { view } = state, total = view.galaxies.name.length;
    const place = byId("many");
    place.hidden = total < 2;
    if (total < 2) return;
    const quantities = view.quantities.slice(0, 4);
    const head = ["Name", "Flags", ...quantities.map((q) => q.title)];
    const rows = view.galaxies.name.slice(0, ROWS).map((name, k) => element("tr", { "data-row": k },
      element("td", {}, element("button", { type: "button", class: "link", onclick: () => openGalaxy(k) }, name)),
      element("td", {}, view.galaxies.codes[k].length ? `▲ ${view.galaxies.codes[k].join(", ")}` : ""),
      ...quantities.map((q) => {
        const bits = view.bitsOf(q, k);
        return element("td", { class: "number" }, element("span", bits !== null && bits < MOSTLY_PRIOR ? { class: "weak" } : {}, view.shown(q, view.galaxies[q.key][k])));
      })));
    place.replaceChildren(
      element("p", {}, `${Charts.plural(total, "galaxy", "galaxies")}${total > ROWS ? `, of which the first ${ROWS} are listed; the downloads have all` : ""}. Choose one:`),
      element("div", { class: "wide" }, element("table", {}, element("thead", {}, element("tr", {}, ...head.map((t) => element("th", { scope: "col" }, t)))), element("tbody", {}, ...rows))));
  }

  function writeDownloads() {
    const address = (name) => `api/result/${state.answer.result}/${name}`;
    const files = [["galaxies.csv", "CSV"], ["posterior.fits", "FITS with all draws"], ["galaxies.html", "Page for colleagues"]];
    if (state.spectrum) files.push(["spectra.fits", "FITS of spectra"]);
    byId("downloads").replaceChildren("Download:", ...files.map(([name, words]) => element("a", { href: address(name), download: name }, words)));
  }

  function openGalaxy(row) {
    const { view } = state;
    Object.assign(state, { row, known: {}, changed: null, spectrum: false });
    state.asked++;
    for (const line of document.querySelectorAll("#many tr[data-row]")) {
      if (Number(line.dataset.row) === row) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    }
    byId("name").textContent = view.galaxies.name[row];
    byId("flags").replaceChildren(...[view.flagsPart(row), view.weakNote(row)].filter(Boolean));
    byId("spectrum").replaceChildren();
    byId("spectrum-status").textContent = "";
    writeDownloads();
    writeSliders();
    writeHistograms();
    writeCorner();
    writeTraversal();
  }

  const usable = () => state.view.galaxies.usable[state.row];

  function writeHistograms() {
    const { view, row, changed } = state;
    byId("legend").textContent = changed
      ? "Blue: with the fixed values; line: before; grey: the prior, that is, all galaxies of the training."
      : view.legend;
    byId("top").replaceChildren(...[view.pictures(row), changed ? changed.valuesTable(0) : view.valuesTable(row)].filter(Boolean));
    byId("histograms").replaceChildren(!usable() ? "" : changed ? changed.histograms(0, { view, k: row }) : view.histograms(row));
  }

  function writeCorner() {
    const { view, row, changed } = state;
    byId("corner").replaceChildren(!usable() ? "" : changed ? changed.cornerPart(0) : view.cornerPart(row));
  }

  // ---- what if

  function writeSliders() {
    const { view, row } = state;
    byId("what-if").hidden = !usable();
    byId("what-if-note").textContent = "Fix a value, as if it had been measured, and see what follows for everything else. The network infers the quantities in this order, so that fixing one fixes those above it.";
    byId("sliders").replaceChildren(...state.answer.sliders.map((slider, at) => {
      const q = view.quantities.find((one) => one.key === slider.key);
      const middle = Math.min(slider.high, Math.max(slider.low, view.galaxies[q.key][row] ?? slider.low));
      const step = slider.key === "redshift" ? 0.001 : 0.01;
      const range = element("input", { type: "range", min: slider.low, max: slider.high, step, "aria-label": `${q.title}, fixed value`, "data-key": slider.key });
      range.value = middle;
      const box = element("input", { type: "checkbox", "data-fix": slider.key });
      const output = element("output", {});
      const name = element("label", {}, box, q.title);
      range.addEventListener("input", () => { fix(at, true); wait(); });
      range.addEventListener("change", () => { if (state.spectrum) generate(); });
      box.addEventListener("change", () => { fix(at, box.checked); wait(); });
      return element("div", { class: "slider" }, name, range, output);
    }));
    writeOutputs();
  }

  // Fixing a quantity fixes those before it; releasing one releases those after it.
  function fix(at, on) {
    document.querySelectorAll("#sliders input[data-fix]").forEach((box, k) => {
      if (on ? k <= at : k >= at) box.checked = on;
    });
    state.known = {};
    document.querySelectorAll("#sliders .slider").forEach((row) => {
      const range = row.querySelector("input[type=range]");
      if (row.querySelector("input[type=checkbox]").checked) state.known[range.dataset.key] = range.valueAsNumber;
    });
    writeOutputs();
  }

  function writeOutputs() {
    const { view } = state;
    const galaxies = state.changed ? state.changed.galaxies : view.galaxies, k = state.changed ? 0 : state.row;
    for (const row of document.querySelectorAll("#sliders .slider")) {
      const range = row.querySelector("input[type=range]"), output = row.querySelector("output");
      const q = view.quantities.find((one) => one.key === range.dataset.key), fixed = range.dataset.key in state.known;
      const value = fixed ? range.valueAsNumber : galaxies[q.key][k];
      if (!fixed && value !== null) range.value = value;
      output.textContent = `${view.shown(q, value)}${fixed ? " fixed" : ""}`;
      output.className = fixed ? "" : "free";
    }
    nearest();
  }

  let timer = 0;
  function wait() {
    clearTimeout(timer);
    timer = setTimeout(condition, 80);
  }

  async function condition() {
    const asked = ++state.asked, known = { ...state.known };
    try {
      let changed = null;
      if (Object.keys(known).length) {
        const found = await ask("api/what-if", { result: state.answer.result, row: state.row, known });
        changed = await Charts.open(found.content);
      }
      // A later movement of a slider has its own answer.
      if (asked !== state.asked) return;
      byId("problem").hidden = true;
      state.changed = changed;
      writeOutputs();
      writeHistograms();
      writeCorner();
    } catch (error) {
      if (asked === state.asked) fail(error);
    }
  }

  // ---- images with one quantity changed

  function writeTraversal() {
    const has = Boolean(state.answer.images[state.row]) && usable();
    byId("traversal").hidden = !has;
    byId("strip").replaceChildren();
    if (!has) return;
    const select = byId("traverse-quantity");
    if (!select.options.length) {
      select.append(...state.answer.sliders.map((s) => element("option", { value: s.key }, state.view.quantities.find((q) => q.key === s.key).title)));
      select.value = state.answer.sliders.length > 2 ? "sfr" : state.answer.sliders[0].key;
      select.addEventListener("change", traverse);
    }
    traverse();
  }

  async function traverse() {
    const { row, answer, view } = state, quantity = byId("traverse-quantity").value;
    try {
      const found = await ask("api/traverse", { result: answer.result, row, quantity });
      if (row !== state.row || answer !== state.answer) return;
      const q = view.quantities.find((one) => one.key === quantity);
      byId("strip").replaceChildren(...found.values.map((value, k) => element("figure", { "data-value": value },
        element("img", { src: found.pictures[k].data, alt: `decoded image with ${q.title} ${number(value, 2)}` }),
        element("figcaption", {}, number(value, quantity === "redshift" ? 3 : 1)))));
      nearest();
    } catch (error) {
      fail(error);
    }
  }

  function nearest() {
    const range = document.querySelector(`#sliders input[data-key="${byId("traverse-quantity").value}"]`);
    const figures = [...document.querySelectorAll("#strip figure")];
    if (!range || !figures.length) return;
    const distance = (figure) => Math.abs(Number(figure.dataset.value) - range.valueAsNumber);
    const near = figures.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    figures.forEach((figure) => figure.classList.toggle("near", figure === near));
  }

  // ---- spectrum

  async function generate() {
    const { row, answer } = state, known = { ...state.known }, button = byId("spectrum-button");
    button.disabled = true;
    byId("spectrum-status").textContent = "Generating; this takes some seconds …";
    byId("spectrum").classList.add("busy");
    try {
      const found = await ask("api/spectrum", { result: answer.result, row, known });
      if (row !== state.row || answer !== state.answer) return;
      const view = await Charts.open(found.content);
      byId("spectrum").replaceChildren(view.spectrumPart(0));
      state.spectrum = true;
      const fixed = Object.keys(known).length;
      byId("spectrum-status").textContent = fixed ? "With the fixed values." : "";
      writeDownloads();
    } catch (error) {
      byId("spectrum-status").textContent = sentence(error.message);
    } finally {
      button.disabled = false;
      byId("spectrum").classList.remove("busy");
    }
  }

  byId("spectrum-button").addEventListener("click", generate);
  try {
    start = await ask("api/start");
    writeForms();
    await show(start.example);
    byId("footer").textContent = `astrogenspec ${start.software}. Results are kept in the memory of the server for a while, and the latest only. Spectra and decoded images are generated, not observed.`;
  } catch (error) {
    fail(error);
  }
  document.documentElement.dataset.ready = "yes";
})();
