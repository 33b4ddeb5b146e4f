"use strict";
(() => {
  const one = (selector) => document.querySelector(selector);
  const make = (name, properties) => Object.assign(document.createElement(name), properties);
  const chart = one(".chart"), inner = one(".inner"), plot = one(".plot"), axis = one(".axis");
  const box = one("#box"), table = one(".events"), span = Number(plot.dataset.span);
  const margin = 0.01;
  let zoom = 1;

  // The scale, as fine as there is room for.
  function rule() {
    const most = Math.max(2, plot.clientWidth / 90);
    let step = 10 ** Math.floor(Math.log10(span / most));
    step *= [1, 2, 5, 10, 20].find((factor) => span / (step * factor) <= most);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const labels = [], lines = [];
    for (let number = 0; number * step <= span; number++) {
      const left = `${(margin + (1 - 2 * margin) * (number * step) / span) * 100}%`;
      const label = make("span", { textContent: (number * step).toFixed(digits) });
      const line = make("div", { className: "rule" });
      label.style.left = line.style.left = left;
      labels.push(label);
      lines.push(line);
    }
    axis.replaceChildren(...labels);
    plot.querySelectorAll(".rule").forEach((each) => each.remove());
    plot.prepend(...lines);
  }

  function magnify(factor, x) {
    const before = plot.clientWidth;
    const offset = inner.firstElementChild.offsetWidth;
    const at = x === undefined ? chart.clientWidth / 2 : x - chart.getBoundingClientRect().left;
    const share = (chart.scrollLeft + at - offset) / before;
    zoom = Math.min(64, Math.max(1, factor === 0 ? 1 : zoom * factor));
    inner.style.setProperty("--zoom", zoom);
    chart.scrollLeft = share * plot.clientWidth - at + offset;
    rule();
  }

  for (const [text, factor] of [["\u2212", 0.5], ["+", 2], ["all", 0]]) {
    const button = make("button", { type: "button", textContent: text });
    button.addEventListener("click", () => magnify(factor));
    one(".zoom").append(button);
  }
  chart.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      magnify(event.deltaY < 0 ? 1.25 : 0.8, event.clientX);
    }
  }, { passive: false });

  // What the pointer is at.
  plot.addEventListener("mouseover", (event) => {
    const link = event.target.closest("a");
    box.hidden = !link;
    if (!link) return;
    const [at, took, where, what, notes] = [...document.getElementById(link.hash.slice(1)).cells]
      .map((cell) => cell.textContent);
    const head = `${at} s  ${took && `(${took}${took === "goes on" ? "" : " s"})  `}${where}`;
    box.replaceChildren(
      make("div", { className: "head", textContent: head }),
      make("div", { textContent: what.slice(0, 900) }),
      make("div", { className: "head", textContent: notes.slice(0, 900) }),
    );
    const place = link.getBoundingClientRect();
    const left = Math.min(Math.max(8, event.clientX + 12), innerWidth - box.offsetWidth - 8);
    const below = place.bottom + 8 + box.offsetHeight < innerHeight;
    box.style.left = `${Math.max(8, left)}px`;
    box.style.top = `${below ? place.bottom + 8 : Math.max(8, place.top - box.offsetHeight - 8)}px`;
  });
  plot.addEventListener("mouseleave", () => { box.hidden = true; });

  // What the table shows.
  const words = make("input", { type: "search", placeholder: "only lines with ..." });
  words.addEventListener("input", () => {
    const wanted = words.value.toLowerCase();
    for (const row of table.tBodies[0].rows) {
      row.classList.toggle("hidden", !row.textContent.toLowerCase().includes(wanted));
    }
  });
  one(".filter").append(words);
  for (const [kind, text] of [["run", " commands"], ["log", " log lines"]]) {
    const check = make("input", { type: "checkbox", checked: true });
    check.addEventListener("change", () => table.classList.toggle(`no-${kind}`, !check.checked));
    const label = make("label");
    label.append(check, text);
    one(".filter").append(label);
  }

  addEventListener("resize", rule);
  rule();
})();
