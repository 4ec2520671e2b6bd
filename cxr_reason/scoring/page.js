// The cases of a score: a list with filters, and the chosen case beside its report. Everything that a case says is set
// as text, never as HTML. Cases stand in the page as blocks of JSON and are read when they are looked at.
"use strict";
(() => {
  const ROW = 68; // pixels, as in page.css
  const $ = (id) => document.getElementById(id);
  const index = JSON.parse($("index").textContent);
  const [list, rows, article, form] = [$("list"), $("rows"), $("case"), $("filters")];
  const SIGNS = { supported: "✓", contradicted: "✗", unverifiable: "?" };
  const HEAVY = ["supported", "unverifiable", "contradicted"]; // a place with several claims is marked as its worst
  let shown = []; // places in the index, in the order of the list
  let at = -1; // which of `shown` is open

  function make(tag, { text, parent, ...attributes } = {}) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== false) element.setAttribute(name === "kind" ? "class" : name, value);
    }
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  }

  // ------------------------------------------------------------------------------------------------------- the list

  const right = (correct) => correct === true || correct === 1;
  const ANSWERS = {
    right: (entry) => right(entry.correct),
    wrong: (entry) => !right(entry.correct) && entry.correct !== undefined && entry.correct !== null,
    unread: (entry) => entry.unread,
  };
  const REASONING = {
    low: (entry) => entry.factuality < 0.5,
    unjudged: (entry) => entry.radrscore === undefined,
  };

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [task, answer, reasoning, order] = ["task", "answer", "reasoning", "order"].map((id) => $(id).value);
    const open = shown[at];
    shown = [];
    for (let place = 0; place < index.length; place++) {
      const entry = index[place];
      if (task && entry.task !== task) continue;
      if (answer && !ANSWERS[answer](entry)) continue;
      if (reasoning && !(REASONING[reasoning] || ((e) => e[reasoning]))(entry)) continue;
      if (words.length) {
        const text = $(`case-${place}`).textContent.toLowerCase();
        if (!words.every((word) => text.includes(word))) continue;
      }
      shown.push(place);
    }
    if (order) {
      const worth = (place) => index[place][order] ?? 2; // what isn't judged comes last
      shown.sort((a, b) => worth(a) - worth(b) || a - b);
    }
    $("count").textContent = `${shown.length.toLocaleString("en")} of ${index.length.toLocaleString("en")} cases`;
    rows.style.height = `${shown.length * ROW}px`;
    const kept = open === undefined ? -1 : shown.indexOf(open);
    if (shown.length) choose(kept < 0 ? 0 : kept);
    else {
      at = -1;
      list.removeAttribute("aria-activedescendant");
      article.replaceChildren(make("p", { text: "No case fits." }));
      draw();
    }
  }

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
    const drawn = [];
    for (let place = first; place < last; place++) drawn.push(row(place));
    rows.replaceChildren(...drawn);
  }

  function row(place) {
    const entry = index[shown[place]];
    const element = make("div", {
      kind: "row", role: "option", id: `row-${place}`, "aria-selected": String(place === at),
      "aria-setsize": shown.length, "aria-posinset": place + 1,
    });
    element.style.top = `${place * ROW}px`;
    const title = make("b", { parent: element });
    if (entry.radrscore !== undefined) make("small", { parent: title, text: entry.radrscore.toFixed(2) });
    title.append(grade(entry.correct), ` ${entry.id}`);
    make("span", { parent: element, text: entry.question });
    const flags = [entry.missed && "critical miss", entry.false && "false critical", entry.side && "side",
      entry.hedge && "hedge as fact"].filter(Boolean);
    const last = make("span", { parent: element, text: entry.task });
    if (flags.length) make("i", { parent: last, kind: "flag", text: ` ${flags.join(", ")}` });
    element.addEventListener("click", () => choose(place));
    return element;
  }

  function grade(correct) {
    if (correct === undefined || correct === null) return make("span", { kind: "grade", text: "" });
    const number = Number(correct);
    const [kind, text, told] = number === 1 ? ["right", "✓", "right"] : number === 0 ? ["wrong", "✗", "wrong"]
      : ["partly", number.toFixed(2), "partly right"];
    const element = make("i", { kind, text, title: `answer ${told}` });
    element.style.fontStyle = "normal";
    return element;
  }

  function choose(place) {
    at = place;
    if (place * ROW < list.scrollTop) list.scrollTop = place * ROW;
    const below = (place + 1) * ROW - list.clientHeight;
    if (below > list.scrollTop) list.scrollTop = below;
    draw();
    list.setAttribute("aria-activedescendant", `row-${place}`);
    show(shown[place]);
    try { history.replaceState(null, "", `#${encodeURIComponent(index[shown[place]].id)}`); } catch { /* a sandbox */ }
  }

  // ------------------------------------------------------------------------------------------------------- the case

  function show(place) {
    const told = JSON.parse($(`case-${place}`).textContent);
    article.replaceChildren();
    make("h3", { parent: article, text: told.id });
    const ids = [told.study_id && `study ${told.study_id}`, told.patient_id && `patient ${told.patient_id}`, told.task];
    make("p", { parent: article, kind: "ids", text: ids.filter(Boolean).join(" · ") });
    make("p", { parent: article, kind: "question", text: told.question ?? "" });
    options(told);
    const pair = make("div", { parent: article, kind: "pair" });
    const chains = make("div", { parent: pair });
    const beside = make("div", { parent: pair, kind: "beside", tabindex: "0", role: "region", "aria-label": "Report" });
    films(told, beside);
    const lit = report(told, beside);
    told.by.forEach((attempt, number) => {
      chain(attempt, make("section", { parent: chains, kind: number ? "other" : "own" }), number ? null : lit);
    });
    reference(told, beside);
    article.scrollTop = 0;
  }

  function options(told) {
    const own = told.by[0];
    if (!told.options || !told.options.length) {
      make("p", { parent: article, text: `Right answer: ${told.answer ?? "not known"}` });
      make("p", { parent: article, text: `Answered: ${own.chosen ?? "nothing that could be read"}` });
      return;
    }
    const listed = make("ul", { parent: article, kind: "options" });
    told.options.forEach((option, number) => {
      const letter = String.fromCharCode(65 + number);
      const notes = [letter === told.answer && "right answer"];
      for (const attempt of told.by) {
        if (attempt.chosen === letter) notes.push(told.by.length > 1 && attempt.model ? `chosen by ${attempt.model}` : "chosen");
      }
      const said = notes.filter(Boolean).join(", ");
      make("li", {
        parent: listed, kind: letter === told.answer && "key-answer", text: `${letter}: ${option}${said && ` (${said})`}`,
      });
    });
    if (own.answer_read === false) make("p", { parent: article, kind: "flag", text: "The answer could not be read." });
  }

  function chain(attempt, parent, lit) {
    const title = make("h4", { parent, text: `${attempt.model || "Chain"} ` });
    title.append(grade(attempt.correct));
    const scores = make("p", { parent, kind: "scores" });
    for (const [name, value] of attempt.scores) {
      const score = make("span", { parent: scores, text: `${name} ` });
      make("b", { parent: score, text: value.toFixed(2) });
    }
    if (attempt.supports_answer === false) {
      make("p", { parent, kind: "flag", text: "The chain speaks against its own answer." });
    }
    if (!attempt.steps.length) make("pre", { parent, text: attempt.prediction ?? "No text." });
    const steps = make("ol", { parent, kind: "steps" });
    attempt.steps.forEach((step, number) => {
      const item = make("li", { parent: steps, kind: step.effective === false ? "step idle" : "step" });
      make("p", { parent: item, text: step.text, title: step.effective === false && "the reference doesn't support this step" });
      claims(attempt.claims.filter((claim) => (claim.step ?? 0) === number), item, lit);
    });
    claims(attempt.claims.filter((claim) => (claim.step ?? 0) >= attempt.steps.length), parent, lit);
    if (attempt.steps.length && attempt.prediction) {
      const whole = make("details", { parent });
      make("summary", { parent: whole, text: "As generated" });
      make("pre", { parent: whole, text: attempt.prediction });
    }
  }

  function claims(told, parent, lit) {
    if (!told.length) return;
    const listed = make("ul", { parent, kind: "claims" });
    for (const claim of told) {
      const item = make("li", { parent: listed });
      const what = claim.text ?? `${claim.finding}: ${claim.status}`;
      const notes = [claim.verdict, claim.basis, claim.side_error && "wrong side", claim.hedge_as_fact && "hedge told as fact"];
      const button = make("button", {
        parent: item, type: "button", kind: `claim ${claim.verdict}`, "aria-pressed": "false",
        text: `${SIGNS[claim.verdict] ?? ""} ${what} (${notes.filter(Boolean).join(", ")})`,
      });
      if (lit) button.addEventListener("click", () => lit(button, claim.spans ?? [], claim.film === "prior"));
    }
  }

  function films(told, parent) {
    if (!told.films || !told.films.length) return;
    const row = make("div", { parent, kind: "films" });
    for (const film of told.films) {
      const figure = make("figure", { parent: row });
      if (film.picture) make("img", { parent: figure, src: JSON.parse($(film.picture).textContent), alt: film.label });
      const caption = make("figcaption", { parent: figure });
      if (film.link) make("a", { parent: caption, href: film.link, text: film.label });
      else caption.textContent = film.missing ? `${film.label}: ${film.missing}` : film.label;
    }
  }

  // The report with the evidence of all claims marked; gives back what lights up that of one.
  function report(told, parent) {
    if (told.report === undefined) {
      make("p", { parent, kind: "ids", text: "No report text." });
      return () => {};
    }
    make("h4", { parent, text: "Report" });
    const marks = [];
    marked(told.report, told.by[0].claims.filter((claim) => claim.film !== "prior"), parent, marks);
    if (told.prior_report !== undefined) {
      make("h4", { parent, text: "Report of the film before" });
      marked(told.prior_report, told.by[0].claims.filter((claim) => claim.film === "prior"), parent, marks, true);
    }
    return (button, wanted, prior) => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of article.querySelectorAll(".claim")) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(on));
      let first = null;
      for (const [start, end, mark, before] of marks) {
        const lights = on && prior === before && wanted.some(([from, to]) => from < end && to > start);
        mark.classList.toggle("lit", lights);
        if (lights) first ??= mark;
      }
      if (first) first.scrollIntoView({ block: "nearest" });
    };
  }

  // A report, what the claims rest on marked and noted in `marks`.
  function marked(report, told, parent, marks, prior = false) {
    const text = [...report]; // offsets count characters, not UTF-16 units
    const spans = told.flatMap((claim) => (claim.spans ?? []).map(([start, end]) => [start, end, claim.verdict]));
    const cuts = [...new Set([0, text.length, ...spans.flatMap(([start, end]) => [start, end])])]
      .filter((cut) => cut >= 0 && cut <= text.length).sort((a, b) => a - b);
    const box = make("div", { parent, kind: "report" });
    for (let n = 0; n + 1 < cuts.length; n++) {
      const piece = text.slice(cuts[n], cuts[n + 1]).join("");
      const over = spans.filter(([start, end]) => start <= cuts[n] && end >= cuts[n + 1]);
      if (!over.length) box.append(piece);
      else {
        const worst = Math.max(...over.map(([, , verdict]) => HEAVY.indexOf(verdict)));
        marks.push([cuts[n], cuts[n + 1], make("mark", { parent: box, kind: HEAVY[worst], text: piece }), prior]);
      }
    }
  }

  function reference(told, parent) {
    if (!told.reference.length) return;
    make("h4", { parent, text: "Reference" });
    const listed = make("ul", { parent, kind: "reference" });
    for (const fact of told.reference) {
      const what = [fact.side, fact.finding].filter(Boolean).join(" ");
      const urgent = fact.urgency === "critical" ? ", critical" : "";
      const missed = urgent && told.missed.includes(fact.finding);
      make("li", { parent: listed, kind: missed && "contradicted", text: `${what}: ${fact.status}${urgent} (${fact.state})` });
    }
  }

  // ------------------------------------------------------------------------------------------------------- by keyboard

  const MOVES = {
    ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, Home: -Infinity, End: Infinity, PageDown: 10, PageUp: -10,
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "Escape") {
      list.focus();
    } else if (typing) {
      return;
    } else if (event.key === "/") {
      $("search").focus();
      $("search").select();
    } else if (event.key in MOVES && shown.length && (event.key.length === 1 || event.target === list)) {
      choose(Math.max(0, Math.min(shown.length - 1, at + MOVES[event.key])));
    } else if (event.key === "Enter" && event.target === list) {
      article.focus();
    } else {
      return;
    }
    event.preventDefault();
  });

  let waiting;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  });
  form.addEventListener("change", (event) => { if (event.target !== $("search")) filter(); });
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  list.addEventListener("scroll", draw);
  addEventListener("resize", draw);

  function open() {
    let wanted = location.hash.slice(1);
    try { wanted = decodeURIComponent(wanted); } catch { /* half an escape is no id */ }
    const place = wanted ? shown.findIndex((one) => index[one].id === wanted) : -1;
    if (place >= 0) choose(place);
  }

  const asked = location.hash;
  filter();
  if (asked) {
    try { history.replaceState(null, "", asked); } catch { /* a sandbox */ }
    open();
  }
  addEventListener("hashchange", open);
})();
