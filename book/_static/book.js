(() => {
  // A link leads to its place also when fonts and pictures that come later move it.
  const place = () => {
    const [name] = location.hash.slice(1).split("?"); // a widget's link holds its state, too
    try {
      return document.getElementById(decodeURIComponent(name));
    } catch {
      return null; // no hash of ours
    }
  };
  const arrive = () => place()?.scrollIntoView();
  const leave = new AbortController();
  for (const moved of ["wheel", "touchstart", "keydown", "mousedown"])
    addEventListener(moved, () => leave.abort(), { once: true, passive: true });
  const watch = new ResizeObserver(arrive);
  leave.signal.onabort = () => watch.disconnect();
  const article = document.querySelector(".bd-article");
  const [visit] = performance.getEntriesByType("navigation");
  if (location.hash && article && visit?.type === "navigate") {
    watch.observe(article); // but who reloads or goes back is put where they were
    addEventListener("load", () => setTimeout(() => leave.abort(), 1500));
  }

  // What is copied holds the TeX of its formulas.
  document.addEventListener("copy", (event) => {
    if (event.target.closest?.("input, textarea")) return;
    const part = getSelection().rangeCount && getSelection().getRangeAt(0).cloneContents();
    if (!part?.querySelector("math[data-tex]")) return;
    for (const math of part.querySelectorAll("math[data-tex]")) {
      const marks = math.getAttribute("display") ? "$$" : "$";
      math.replaceWith(marks + math.dataset.tex + marks);
    }
    const copied = document.createElement("div");
    copied.append(part);
    event.clipboardData.setData("text/plain", copied.textContent);
    event.clipboardData.setData("text/html", copied.innerHTML);
    event.preventDefault();
  });

  // A reference to an equation, a figure or a term shows it.
  const SHOWN = "div.math, figure, dt, div.exercise, div.proof";
  const pages = new Map();

  function read(address) {
    if (!pages.has(address)) {
      const parse = (text) => new DOMParser().parseFromString(text, "text/html");
      pages.set(address, fetch(address).then((answer) => answer.text()).then(parse));
    }
    return pages.get(address);
  }

  async function target(link) {
    const url = new URL(link.href);
    const here = url.pathname === location.pathname;
    const page = here ? document : await read(url.origin + url.pathname);
    const place = page.getElementById(decodeURIComponent(url.hash.slice(1)));
    const found = place?.closest(SHOWN) ?? place?.querySelector(SHOWN);
    if (!found) return null;
    const copy = found.cloneNode(true);
    if (found.matches("dt")) copy.append(found.nextElementSibling.cloneNode(true));
    for (const each of [copy, ...copy.querySelectorAll("[id]")]) each.removeAttribute("id");
    for (const image of copy.querySelectorAll("img")) image.src = new URL(image.getAttribute("src"), url);
    return copy;
  }

  let card, wanted, delay;

  function hide() {
    clearTimeout(delay);
    wanted?.removeAttribute("aria-describedby");
    wanted = undefined;
    card?.remove();
  }

  // The pointer may move over to the card, which can be longer than it shows.
  function leaveSoon() {
    clearTimeout(delay);
    delay = setTimeout(() => card?.matches(":hover") || hide(), 200);
  }

  async function show(link) {
    hide();
    wanted = link;
    const content = await target(link).catch(() => null);
    if (!content || wanted !== link) return;
    card = Object.assign(document.createElement("div"), { className: "preview", id: "preview" });
    card.setAttribute("role", "tooltip");
    card.addEventListener("mouseleave", leaveSoon);
    link.setAttribute("aria-describedby", "preview");
    card.append(content);
    document.querySelector(".bd-article").append(card);
    const { left, top, bottom } = link.getBoundingClientRect();
    const { width, height } = card.getBoundingClientRect();
    const below = bottom + height + 8 < innerHeight || top < height;
    card.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
    card.style.top = `${below ? bottom + 6 : top - height - 6}px`;
  }

  const LINKS = ".bd-article a.reference.internal[href*='#']:not(.preview a)";
  for (const [start, end] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    document.addEventListener(start, (event) => {
      const link = event.target.closest?.(LINKS);
      if (!link) return;
      clearTimeout(delay);
      if (link !== wanted) delay = setTimeout(show, 250, link);
    });
    document.addEventListener(end, (event) => {
      if (event.target.closest?.(LINKS)) leaveSoon();
    });
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  addEventListener("scroll", hide, { passive: true });

  // Paper is light, and what is folded there cannot be opened.
  let theme, folded;
  addEventListener("beforeprint", () => {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const each of folded) each.open = true;
  });
  addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = theme;
    for (const each of folded) each.open = false;
  });
})();
