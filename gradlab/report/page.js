"use strict";
// The behaviour of a report: tables that sort, filter and turn pages, and pictures that follow
// the legend, the selects and the switch of scales. Texts are set as text, never as HTML.
(() => {
  const PAGE = 25;
  const PRINTED = 500; // rows of a table on paper
  document.documentElement.classList.add("js");

  function numberText(value) {
    if (value === null || !Number.isFinite(value)) return "";
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e6) return String(value);
    if (value === 0 || (size >= 1e-4 && size < 1e6)) return String(Number(value.toPrecision(4)));
    return value.toExponential(3).replace("e+", "e");
  }

  // A column as values that sort and text that is shown.
  function readColumn(column) {
    const values = column.number
      ? column.values
      : column.values.map((place) => (place === null ? null : column.texts[place]));
    const text = column.number ? numberText : (value) => (value === null ? "" : value);
    return { ...column, values, text: (row) => text(values[row]) };
  }

  // "ZGR tau<1 method=exact": every word must hold in a row.
  function condition(word, columns) {
    const parts = /^([^<>=]+)(<=|>=|<|>|=)(.*)$/.exec(word);
    const column = parts && columns.find((c) => c.name === parts[1] || c.title === parts[1]);
    if (column && parts[3] !== "") {
      const [, , sign, right] = parts;
      const number = Number(right);
      if (column.number && !Number.isNaN(number)) {
        const holds = { "<": (v) => v < number, ">": (v) => v > number, "<=": (v) => v <= number,
          ">=": (v) => v >= number, "=": (v) => v === number }[sign];
        return (row) => column.values[row] !== null && holds(column.values[row]);
      }
      return (row) => sign === "=" && column.text(row).toLowerCase() === right.toLowerCase();
    }
    const needle = word.toLowerCase();
    return (row) => columns.some((c) => c.text(row).toLowerCase().includes(needle));
  }

  function wordsOf(text) {
    // Names of estimators hold spaces: "GR(tau=0.1, k=10)" in quotes is one word.
    return [...text.matchAll(/"([^"]+)"|(\S+)/g)].map((found) => ({
      text: found[1] ?? found[2], quoted: found[1] !== undefined }));
  }

  function table(section, columns) {
    const element = section.querySelector("table.rows");
    if (!element) return;
    const status = section.querySelector(".status");
    const filter = section.querySelector(".filter");
    const all = section.querySelector("button.columns");
    const [previous, next] = [".previous", ".next"].map((name) => section.querySelector(name));
    const count = columns.length ? columns[0].values.length : 0;
    const first = columns.filter((c) => c.shown);
    let shown = first.length ? first : columns;
    let [by, down, page, size] = [null, false, 0, PAGE];
    let rows = [...Array(count).keys()];
    if (shown.length === columns.length) all.hidden = true;

    function find() {
      const plain = (needle) => (row) =>
        columns.some((c) => c.text(row).toLowerCase().includes(needle.toLowerCase()));
      const tests = wordsOf(filter.value).map((word) =>
        word.quoted ? plain(word.text) : condition(word.text, columns));
      rows = [...Array(count).keys()].filter((row) => tests.every((test) => test(row)));
      if (by) {
        const compare = by.number ? (a, b) => a - b : (a, b) => a.localeCompare(b);
        // Empty cells stand last, whatever the direction.
        rows.sort((i, j) => {
          const [a, b] = [by.values[i], by.values[j]];
          if (a === null || b === null) return (a === null) - (b === null) || i - j;
          return (down ? -compare(a, b) : compare(a, b)) || i - j;
        });
      }
    }

    function head() {
      const line = document.createElement("tr");
      for (const column of shown) {
        const cell = document.createElement("th");
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = column.title;
        if (column.meaning) button.title = column.meaning;
        button.addEventListener("click", () => {
          // The first click on a number brings the largest to the top.
          down = by === column ? !down : column.number;
          by = column;
          page = 0;
          update();
        });
        cell.scope = "col";
        if (column.number) cell.className = "number";
        cell.append(button);
        line.append(cell);
      }
      element.tHead.replaceChildren(line);
    }

    function update() {
      find();
      [...element.tHead.rows[0].cells].forEach((cell, at) => {
        const sorted = shown[at] === by;
        cell.setAttribute("aria-sort", !sorted ? "none" : down ? "descending" : "ascending");
      });
      draw();
    }

    function draw() {
      const pages = Math.max(1, Math.ceil(rows.length / size));
      page = Math.min(Math.max(page, 0), pages - 1);
      const here = rows.slice(page * size, (page + 1) * size);
      element.tBodies[0].replaceChildren(...here.map((row) => {
        const line = document.createElement("tr");
        for (const column of shown) {
          const cell = document.createElement("td");
          if (column.number) cell.className = "number";
          else if (column.long) cell.className = "long";
          cell.textContent = column.text(row);
          line.append(cell);
        }
        return line;
      }));
      const of = rows.length === count ? `${count}` : `${rows.length} found of ${count}`;
      status.textContent = rows.length
        ? `Rows ${page * size + 1} to ${page * size + here.length} of ${of}`
        : `No row of ${count} is found`;
      previous.disabled = page === 0;
      next.disabled = page >= pages - 1;
    }

    filter.addEventListener("input", () => { page = 0; update(); });
    previous.addEventListener("click", () => { page -= 1; draw(); });
    next.addEventListener("click", () => { page += 1; draw(); });
    all.addEventListener("click", () => {
      const more = all.getAttribute("aria-pressed") !== "true";
      all.setAttribute("aria-pressed", String(more));
      shown = more ? columns : first;
      head();
      update();
    });
    window.addEventListener("beforeprint", () => { size = PRINTED; page = 0; draw(); });
    window.addEventListener("afterprint", () => { size = PAGE; page = 0; draw(); });
    head();
    update();
  }

  function pictures(section, data, columns) {
    if (!data.charts.length) return;
    const byName = new Map(columns.map((c) => [c.name, c]));
    const count = columns[0].values.length;
    const points = [...Array(count).keys()].map((row) => {
      const point = {};
      for (const column of columns) point[column.name] = column.values[row];
      const [color, shape] = data.looks[point.series] ?? ["#777777", "circle"];
      const label = columns.filter((c) => c.shown && c.values[row] !== null)
        .map((c) => `${c.title} ${c.text(row)}`).join("; ");
      return { ...point, color, shape, label, opacity: point.method === "exact" ? 0.12 : 0.9 };
    });

    const selects = [...section.querySelectorAll("select[data-column]")];
    for (const select of selects) {
      const values = [...new Set(byName.get(select.dataset.column).values)];
      values.forEach((value, at) => {
        select.append(new Option(value === null ? "(empty)" : String(value), String(at)));
      });
      select.append(new Option("all", "all"));
      select.value = select.dataset.column === "method" ? "all" : "0";
      select.addEventListener("change", drawAll);
      select.chosen = () => (select.value === "all" ? undefined : values[Number(select.value)]);
    }

    const keys = [...section.querySelectorAll("button.key")];
    const families = [...section.querySelectorAll("button.family")];
    const isOn = (button) => button.getAttribute("aria-pressed") === "true";
    const turn = (button, on) => button.setAttribute("aria-pressed", String(on));
    const membersOf = (family) => [...family.parentElement.querySelectorAll("button.key")];
    for (const key of keys) {
      key.addEventListener("click", () => {
        turn(key, !isOn(key));
        families.forEach((family) => turn(family, membersOf(family).some(isOn)));
        drawAll();
      });
    }
    for (const family of families) {
      family.addEventListener("click", () => {
        turn(family, !isOn(family));
        membersOf(family).forEach((key) => turn(key, isOn(family)));
        drawAll();
      });
    }

    // A picture may be free of menus: along its axes it shows all of their values.
    function chosen(free) {
      const on = new Set(keys.filter(isOn).map((key) => key.dataset.series));
      return points.filter((point) => on.has(point.series) && selects.every((select) => {
        if (free.includes(select.dataset.column)) return true;
        const value = select.chosen();
        return value === undefined || point[select.dataset.column] === value;
      }));
    }

    const drawn = data.charts.map((chart) => {
      const canvas = document.getElementById(`${section.id}-${chart.name}`);
      const figure = canvas.closest("figure");
      const vertical = figure.querySelector("select.vertical");
      const log = figure.querySelector("button.log");
      const names = [...new Set(chart.views.map((view) => view.y))];
      let [wanted, last] = [chart.log, null];
      if (vertical) {
        names.forEach((name) => vertical.append(new Option(name, name)));
        vertical.addEventListener("change", () => draw());
      }
      if (log) {
        turn(log, wanted);
        log.addEventListener("click", () => { wanted = !wanted; turn(log, wanted); draw(); });
      }
      async function draw() {
        const name = vertical ? vertical.value : names[0];
        const all = chart.views.filter((view) => view.y === name);
        const view = all.find((one) => one.log === wanted) ?? all[0];
        if (log) log.disabled = all.length < 2;
        if (log) turn(log, view.log);
        const values = chosen(chart.free);
        figure.querySelector(".band").textContent = view.bands.map((band) => {
          const inside = values.filter((point) => {
            const value = point[band.column];
            return value !== null && value !== undefined && value <= band.floor;
          }).length;
          return inside > 1 ? band.many.replace("{n}", inside) : inside === 1 ? band.one : "";
        }).filter(Boolean).join(" ");
        if (!values.length) figure.querySelector(".band").textContent = "No row has this choice.";
        const spec = { ...view.spec, data: { values } };
        // The old picture stays until the new one is there.
        const place = document.createElement("div");
        place.className = "picture";
        canvas.append(place);
        place.style.cssText = "position:absolute;visibility:hidden;width:" + canvas.clientWidth + "px";
        const ticket = (draw.ticket = (draw.ticket ?? 0) + 1);
        const made = await window.gradlabDraw(place, spec, { renderer: "svg", actions: false, ast: true });
        if (ticket !== draw.ticket) { made.finalize(); place.remove(); return; }
        last?.finalize();
        place.style.cssText = "";
        canvas.replaceChildren(place);
        last = made;
        figure.dataset.drawn = String(ticket);
      }
      return draw;
    });
    function drawAll() { return Promise.all(drawn.map((draw) => draw())); }
    drawAll();
  }

  // On paper nothing can be opened.
  window.addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details:not([open])")) {
      one.open = true;
      one.dataset.closed = "yes";
    }
  });
  window.addEventListener("afterprint", () => {
    for (const one of document.querySelectorAll("details[data-closed]")) {
      one.open = false;
      delete one.dataset.closed;
    }
  });

  for (const section of document.querySelectorAll("section.report")) {
    const data = JSON.parse(document.getElementById(`${section.id}-data`).textContent);
    const columns = data.columns.map(readColumn);
    table(section, columns);
    pictures(section, data, columns);
  }
})();
