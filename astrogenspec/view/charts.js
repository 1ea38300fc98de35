"use strict";
// Charts of one galaxy and small tools, shared by the page of results and the web application.
const Charts = (() => {
  const MISSING = 65535;
  const MOSTLY_PRIOR = 0.5, INFORMED = 1.5;
  // Bits at which the meter of information is full.
  const FULL_METER = 4;

  function element(tag, options = {}, ...children) {
    return fill(document.createElement(tag), options, children);
  }

  function svg(tag, options = {}, ...children) {
    return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), options, children);
  }

  function fill(made, options, children) {
    for (const [key, value] of Object.entries(options)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  const plural = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  const percent = (x) => `${Math.round(100 * x)}%`;

  function number(value, digits) {
    if (value === null || value === undefined) return "–";
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  }

  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-6; t += step) {
      found.push([t, number(Math.abs(t) < step / 1e6 ? 0 : t, digits)]);
    }
    return found;
  }

  function grade(bits) {
    if (bits === null) return "";
    return bits < MOSTLY_PRIOR ? "mostly prior" : bits < INFORMED ? "partly informed" : "informed";
  }

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

  // Start the download of a text or a blob.
  function save(content, name, type) {
    const address = URL.createObjectURL(new Blob([content], { type }));
    element("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  // View of the content of a page: functions of the number k of a galaxy.
  async function open(page) {
    const { galaxies, quantities } = page;
    const arrays = await unpacked(page.arrays);
    const chosen = quantities.length > 2 ? [0, 1, 2] : quantities.map((_, i) => i);
    const isFlagged = (k) => galaxies.codes[k].length > 0;

    // Values are base-10 logarithms of line fluxes; people read fluxes.
    function shown(q, value) {
      if (value === null || value === undefined) return "–";
      if (!q.logarithmic) return number(value, q.digits);
      const flux = 10 ** value;
      return flux >= 100 ? flux.toFixed(0) : flux.toPrecision(2);
    }

    function interval(q, k) {
      return `${shown(q, galaxies[`${q.key}_low`][k])} to ${shown(q, galaxies[`${q.key}_high`][k])}`;
    }

    function bitsOf(q, k) {
      const bits = galaxies[`${q.key}_bits`];
      return bits ? bits[k] : null;
    }

    const truthOf = (key, k) => page.truth?.values[key]?.[k] ?? null;

    function draws(index, k) {
      const { values, shape } = arrays.draws;
      const q = quantities[index], n = shape[2], start = (index * shape[1] + k) * n;
      return Array.from(values.subarray(start, start + n), (code) =>
        code === MISSING ? null : q.low + (code / (MISSING - 1)) * (q.high - q.low));
    }

    // Histogram of all draws, smoothed by less than a third of the half width of the 68% interval.
    function density(index, k) {
      const { values, shape } = arrays.histograms, n = shape[2], q = quantities[index];
      const start = (index * shape[1] + k) * n;
      const counts = Array.from(values.subarray(start, start + n));
      const width = ((galaxies[`${q.key}_high`][k] - galaxies[`${q.key}_low`][k]) / 2 / (q.high - q.low)) * n;
      const sigma = 0.3 * width, reach = Math.ceil(3 * sigma);
      if (!(sigma > 0.3)) return counts.map((c) => c / 255);
      const kernel = [];
      for (let i = -reach; i <= reach; i++) kernel.push(Math.exp(-0.5 * (i / sigma) ** 2));
      const smooth = counts.map((_, at) => kernel.reduce((sum, w, i) => sum + w * (counts[at + i - reach] ?? 0), 0));
      const most = Math.max(...smooth, 1e-9);
      return smooth.map((v) => v / most);
    }

    // ---- posterior of one quantity, with the prior behind it

    // `before`: { view, k }, a posterior that is drawn as a line on the same axis.
    function histogram(index, k, before = null) {
      const q = quantities[index], W = 260, H = 124, left = 8, right = 252, base = 96, top = 26;
      const frame = before ? before.view.quantities[index] : q;
      const X = (v) => left + Math.min(1, Math.max(0, (v - frame.low) / (frame.high - frame.low))) * (right - left);
      const Y = (height) => base - height * (base - top);
      const outline = (heights, from, to) => {
        const step = (to - from) / heights.length;
        return `M${X(from).toFixed(1)},${base}` + heights.map((h, i) => `L${X(from + (i + 0.5) * step).toFixed(1)},${Y(h).toFixed(1)}`).join("") + `L${X(to).toFixed(1)},${base}`;
      };
      const middle = galaxies[q.key][k], truth = truthOf(q.key, k);
      const words = middle === null ? "no draws" : `${shown(q, middle)}, 68% interval ${interval(q, k)} ${q.unit}`;
      const chart = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img", "aria-label": `${q.title}: ${words}` });
      chart.append(svg("title", {}, `${q.title}: ${words}. ${q.description}`));
      if (frame.prior) chart.append(svg("path", { class: "prior", d: outline(frame.prior, frame.low, frame.high) + "Z" }));
      if (middle !== null) {
        const low = galaxies[`${q.key}_low`][k], high = galaxies[`${q.key}_high`][k];
        if (high - low < 1e-9) {
          chart.append(svg("line", { class: "fixed", x1: X(middle), x2: X(middle), y1: top, y2: base }));
        } else {
          chart.append(svg("path", { class: "post", d: outline(density(index, k), q.low, q.high) + "Z" }));
        }
        if (before && before.view.galaxies[q.key][before.k] !== null) {
          chart.append(svg("path", { class: "before", d: outline(before.view.density(index, before.k), frame.low, frame.high) }));
        }
        chart.append(svg("line", { class: "band", x1: X(low), x2: X(high), y1: base + 3, y2: base + 3 }));
        chart.append(svg("circle", { class: "mid", cx: X(middle), cy: base + 3, r: 3.5 }));
      }
      if (truth !== null) chart.append(svg("line", { class: "truth", x1: X(truth), x2: X(truth), y1: top - 6, y2: base }));
      chart.append(svg("line", { class: "axis", x1: left, x2: right, y1: base, y2: base }));
      for (const [t, text] of ticks(frame.low, frame.high, 4)) {
        chart.append(svg("line", { class: "axis", x1: X(t), x2: X(t), y1: base, y2: base + 4 }));
        chart.append(svg("text", { x: X(t), y: base + 18, "text-anchor": "middle" }, text));
      }
      chart.append(svg("text", { class: "head", x: left, y: 13 }, q.axis));
      return chart;
    }

    // ---- picture with scale bar and directions

    function picture(found, caption, k) {
      const [w, h] = found.size;
      const bottom = (100 * h) / w;
      const overlay = svg("svg", { viewBox: `0 0 100 ${bottom}`, "aria-hidden": "true" });
      const line = (x1, y1, x2, y2) => [["#000", 2.4], ["#fff", 1]].map(([stroke, width]) => svg("line", { x1, y1, x2, y2, stroke, "stroke-width": width, "stroke-linecap": "round" }));
      const label = (x, y, text, anchor = "start") => svg("text", { x, y, fill: "#fff", stroke: "#000", "stroke-width": 0.8, "paint-order": "stroke", "font-size": 6, "text-anchor": anchor, "font-family": "system-ui, sans-serif" }, text);
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
      const words = caption === "Colour image" && !found.north ? "Colour image; its orientation on the sky is not known" : caption;
      return element("figure", {},
        element("div", { class: "picture" },
          element("img", { src: found.data, width: w, height: h, alt: `${caption} of ${galaxies.name[k]}` }), overlay),
        element("figcaption", {}, words));
    }

    function pictures(k) {
      const image = page.pictures?.image?.[k], rebuilt = page.pictures?.reconstruction?.[k];
      if (!image && !rebuilt) return null;
      return element("div", { class: "pictures" },
        image ? picture(image, "Colour image", k) : null,
        rebuilt ? picture(rebuilt, "Reconstruction by the network", k) : null);
    }

    // ---- table of values

    function meter(bits) {
      if (bits === null) return "–";
      const words = `${number(bits, 1)} bits, ${grade(bits)}`;
      const kind = bits < MOSTLY_PRIOR ? "k0" : bits < INFORMED ? "k1" : "k2";
      const width = percent(Math.min(1, Math.max(0, bits) / FULL_METER));
      return element("span", { class: "informed" },
        element("span", { class: "meter", "aria-hidden": "true" }, element("span", { class: kind, style: `width:${width}` })),
        element("span", {}, words));
    }

    function valuesTable(k) {
      const head = ["Quantity", "Median", "68% interval", "Information"];
      if (page.truth) head.push("True value");
      const body = element("tbody");
      for (const q of quantities) {
        const bits = bitsOf(q, k), weak = bits !== null && bits < MOSTLY_PRIOR;
        const cells = [
          element("th", { scope: "row", title: q.description }, q.title, q.unit ? element("span", { class: "unit" }, ` ${q.unit}`) : null),
          element("td", { class: "number" }, element("span", weak ? { class: "weak" } : {}, shown(q, galaxies[q.key][k]))),
          element("td", { class: "number" }, galaxies[q.key][k] === null ? "–" : interval(q, k)),
          element("td", {}, meter(bits)),
        ];
        if (page.truth) cells.push(element("td", { class: "number" }, shown(q, truthOf(q.key, k))));
        body.append(element("tr", {}, ...cells));
      }
      return element("div", { class: "wide" }, element("table", { class: "values" },
        element("thead", {}, element("tr", {}, ...head.map((t) => element("th", { scope: "col" }, t)))), body));
    }

    // ---- joint distribution of three quantities

    function cornerChart(k) {
      const n = chosen.length, side = 150, gap = 8, left = 52, top = 6, size = left + n * (side + gap);
      const chart = svg("svg", { viewBox: `0 0 ${size} ${size + 44 - left}`, class: "chart", role: "img", "aria-label": `joint distribution of ${chosen.map((c) => quantities[c].title).join(", ")}` });
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
            const bins = new Array(18).fill(0);
            for (const v of data[row]) if (v !== null) bins[Math.min(17, Math.floor((18 * (v - xl)) / (xh - xl)))]++;
            const most = Math.max(...bins, 1);
            bins.forEach((b, i) => chart.append(svg("rect", { class: "post", x: x0 + (i * side) / 18, width: side / 18 - 0.6, y: y0 + side - (0.93 * side * b) / most, height: (0.93 * side * b) / most })));
          } else {
            const dots = [];
            data[column].forEach((v, i) => { if (v !== null && data[row][i] !== null) dots.push(`M${X(v).toFixed(1)},${Y(data[row][i]).toFixed(1)}h0`); });
            chart.append(svg("path", { class: "dots", d: dots.join("") }));
          }
          const tx = truthOf(quantities[chosen[column]].key, k), ty = truthOf(quantities[chosen[row]].key, k);
          if (tx !== null && tx > xl && tx < xh) chart.append(svg("line", { class: "truth", x1: X(tx), x2: X(tx), y1: y0, y2: y0 + side }));
          if (row !== column && ty !== null && ty > yl && ty < yh) chart.append(svg("line", { class: "truth", x1: x0, x2: x0 + side, y1: Y(ty), y2: Y(ty) }));
          chart.append(svg("rect", { class: "axis", x: x0, y: y0, width: side, height: side }));
          if (row === n - 1) {
            for (const [t, text] of ticks(xl, xh, 3)) chart.append(svg("text", { x: X(t), y: y0 + side + 14, "text-anchor": "middle" }, text));
            chart.append(svg("text", { class: "head", x: x0 + side / 2, y: y0 + side + 31, "text-anchor": "middle" }, quantities[chosen[column]].title));
          }
          if (column === 0 && row > 0) {
            for (const [t, text] of ticks(yl, yh, 3)) chart.append(svg("text", { x: x0 - 5, y: Y(t) + 4, "text-anchor": "end" }, text));
            chart.append(svg("text", { class: "head", transform: `translate(${x0 - 38},${y0 + side / 2}) rotate(-90)`, "text-anchor": "middle" }, quantities[chosen[row]].title));
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

    // ---- spectrum

    function spectrumChart(k) {
      const s = page.spectra, { values, shape } = arrays.spectra;
      const [low, high] = s.limits[k];
      const curve = (i) => Array.from(values.subarray((k * shape[1] + i) * shape[2], (k * shape[1] + i + 1) * shape[2]), (c) => (c === MISSING ? null : low + (c / (MISSING - 1)) * (high - low)));
      const curves = Array.from({ length: shape[1] }, (_, i) => curve(i));
      const best = curves[0], [p2, p16, p50, p84, p97] = curves.slice(1);
      const main = p50 ?? best;
      const finite = main.filter((v) => v !== null).sort((a, b) => a - b);
      if (!finite.length) return element("p", {}, "No spectrum was generated for this galaxy.");
      const W = 1000, H = 390, left = 52, right = 992, top = 96, base = 344;
      const w = s.wavelength, X = (v) => left + ((v - w[0]) / (w[w.length - 1] - w[0])) * (right - left);
      const brightest = best.concat(p97 ?? []).reduce((a, b) => (b === null ? a : Math.max(a, b)), 0);
      const ceiling = Math.max(Math.min(brightest, 2.5 * Math.abs(finite[Math.floor(0.95 * finite.length)])), finite[finite.length - 1] * 0.6, 1e-6);
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
        let before = -Infinity;
        for (const [name, rest] of [...page.lines].sort((a, b) => a[1] - b[1])) {
          const at = rest * (1 + z);
          if (at < w[0] || at > w[w.length - 1]) continue;
          // Names of close lines are moved to the right.
          const place = Math.max(X(at), before + 13);
          before = place;
          chart.append(svg("line", { class: "mark", x1: X(at), x2: X(at), y1: top, y2: base }));
          chart.append(svg("text", { transform: `translate(${place + 4},${top - 5}) rotate(-90)` }, name));
        }
      }
      if (p50) chart.append(svg("path", { class: "median", d: path(p50) }));
      chart.append(svg("path", { class: "best", d: path(best) }));
      chart.append(svg("line", { class: "axis", x1: left, x2: right, y1: base, y2: base }));
      for (const [t, text] of ticks(w[0], w[w.length - 1], 6)) chart.append(svg("line", { class: "axis", x1: X(t), x2: X(t), y1: base, y2: base + 4 }), svg("text", { x: X(t), y: base + 18, "text-anchor": "middle" }, text));
      chart.append(svg("text", { class: "head", x: (left + right) / 2, y: base + 38, "text-anchor": "middle" }, `${s.rest ? "rest-frame" : "observed"} vacuum wavelength [Å]`));
      chart.append(svg("text", { class: "head", transform: `translate(12,${(top + base) / 2}) rotate(-90)`, "text-anchor": "middle" }, "flux density [1e-17 erg/s/cm²/Å]"));
      return chart;
    }

    function spectrumPart(k) {
      const s = page.spectra, z = s.redshift[k];
      const words = [
        `Generated, not observed: ${plural(s.draws, "draw", "draws")}${s.aperture ? `, ${s.aperture === "fibre" ? "aperture of 3 arcsec" : "total flux"}` : ""}.`,
        s.draws > 1 ? "Thin line: median; shaded: 68% and 95% of the draws; orange: the best draw." : "",
        z !== null && !s.rest ? `Lines are marked at z = ${number(z, 4)}, the redshift of the best draw.` : "",
        s.not_trusted[k].length ? "Grey: wavelengths that the model does not cover." : "",
        s.binned > 1 ? `Averaged over ${s.binned} pixels.` : "",
      ];
      return element("div", {},
        element("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "spectrum" }, element("div", { style: "min-width:46rem" }, spectrumChart(k))),
        element("p", { class: "note" }, words.filter(Boolean).join(" ")));
    }

    // ---- reasons to distrust a galaxy

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

    function histograms(k, before = null) {
      return element("div", { class: "small" }, ...quantities.map((_, i) => histogram(i, k, before)));
    }

    const legend = `Blue: this galaxy; grey: the prior, that is, all galaxies of the training. Dot and bar: median and 68% interval.${page.truth ? " Dashed: true value." : ""}`;

    // Everything about one galaxy.
    function body(k) {
      const parts = [flagsPart(k), weakNote(k), element("div", { class: "top" }, pictures(k), valuesTable(k))];
      if (galaxies.usable[k]) {
        parts.push(element("h3", {}, "What is known about each quantity"), element("p", { class: "note" }, legend), histograms(k));
        if (page.spectra) parts.push(element("h3", {}, "Spectrum"), spectrumPart(k));
        if (chosen.length > 1) parts.push(element("h3", {}, "Joint distribution of any three quantities"), cornerPart(k));
      }
      return parts.filter((part) => part !== null);
    }

    return {
      page, galaxies, quantities, isFlagged, shown, interval, bitsOf, truthOf, density, histogram, histograms,
      picture, pictures, valuesTable, cornerPart, spectrumPart, flagsPart, weakNote, legend, body,
    };
  }

  return { element, svg, plural, percent, number, ticks, grade, save, unpacked, open, MISSING, MOSTLY_PRIOR };
})();
