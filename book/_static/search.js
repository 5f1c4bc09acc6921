// The search page: MiniSearch over the book's sections and terms.
(() => {
  const AROUND = 160; // characters of a passage
  const field = document.querySelector(".bd-search-container input");
  const list = document.getElementById("search-results");
  if (!list) return;

  // One form for each word: v-prediction is a word, and plurals are their singulars.
  const tokenize = (text) =>
    text.toLowerCase().normalize("NFKD").replace(/[\u0300-\u036f]/g, "").match(/[\p{L}\p{N}]+(?:-[\p{L}\p{N}]+)*/gu) ?? [];
  const processTerm = (word) => (word.length > 3 ? word.replace(/(?<!s)s$/, "") : word);
  const split = (text) => tokenize(text).flatMap((word) => (word.includes("-") ? [word, ...word.split("-")] : [word]));

  const index = new MiniSearch({ fields: ["title", "page", "text"], tokenize: split, processTerm });
  index.addAll(ENTRIES.map((entry, id) => ({ ...entry, id })));

  // The query in the book's words, where readers also know others.
  function spelled(query) {
    const found = Object.entries(SPELLINGS).filter(
      ([word, term]) => ` ${query} `.includes(` ${word} `) && !query.includes(term),
    );
    return found.reduce((text, [word, term]) => ` ${text} `.replace(` ${word} `, ` ${term} `).trim(), query);
  }

  function find(query) {
    const typed = query.toLowerCase().replace(/[^\p{L}\p{N}/-]+/gu, " ").trim();
    const forms = [...new Set([typed, spelled(typed)])].flatMap(search);
    const seen = new Set();
    return forms
      .sort((a, b) => b.score - a.score)
      .filter(({ id }) => !seen.has(id) && seen.add(id))
      .map(({ id, terms }) => ({ ...ENTRIES[id], terms }));
  }

  function search(exact) {
    const options = {
      boost: { title: 4, page: 1.5 },
      prefix: (word) => word.length > 3,
      fuzzy: (word) => (word.length > 5 ? 0.2 : false),
      boostDocument: (id) => {
        const { title, term, url } = ENTRIES[id];
        if (url.startsWith("book/api")) return 0.5; // what explains comes before what is called
        const name = title.toLowerCase().replace(/^\d+\s+/, "");
        return (term ? 1.5 : 1) * (processTerm(name) === processTerm(exact) ? 4 : name.includes(exact) ? 2 : 1);
      },
    };
    const all = index.search(exact, { ...options, combineWith: "AND" });
    const some = all.length < 5 ? index.search(exact, options) : [];
    return [...all, ...some.map((each) => ({ ...each, score: each.score / 1000 }))];
  }

  function passage({ text, terms }) {
    const at = text.toLowerCase().search(new RegExp(terms.map((t) => t.replace(/[^\p{L}\p{N}-]/gu, "")).join("|"), "u"));
    const start = Math.max(0, text.lastIndexOf(" ", Math.max(0, at - AROUND / 3)));
    const end = text.indexOf(" ", start + AROUND);
    return (start ? "… " : "") + text.slice(start, end < 0 ? undefined : end).trim() + (end < 0 ? "" : " …");
  }

  function element(name, text, attributes = {}) {
    return Object.assign(document.createElement(name), { textContent: text, ...attributes });
  }

  function show() {
    const found = field.value.trim() ? find(field.value).slice(0, 30) : [];
    list.replaceChildren(
      ...found.map((entry) => {
        const item = document.createElement("li");
        item.append(element("a", entry.title, { href: entry.url }));
        if (entry.page) item.append(element("span", entry.page, { className: "search-page" }));
        item.append(element("p", passage(entry)));
        return item;
      }),
    );
    const count = document.getElementById("search-count");
    if (!field.value.trim()) count.textContent = "";
    else count.textContent = found.length ? `${found.length} places` : "Nothing found. Try another word, or look into the glossary.";
  }

  field.value = new URLSearchParams(location.search).get("q") ?? "";
  field.addEventListener("input", show);
  field.form.addEventListener("submit", (event) => {
    event.preventDefault();
    history.replaceState(null, "", `?q=${encodeURIComponent(field.value)}`);
    show();
  });
  field.focus();
  show();
})();
