// Settings of the whole page, and when its figures are drawn.

const root = document.documentElement;
const figures = new Map();

function drawOnce(node) {
  if (!figures.has(node)) figures.set(node, new PlotFigure(node));
}

function redraw() {
  for (const figure of figures.values()) figure.draw();
}

function remembered(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(`samt-report-${name}`);
    localStorage.setItem(`samt-report-${name}`, value);
  } catch {
    // A page from a folder may have no storage: the setting then lasts as long as the page.
  }
  return null;
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.querySelector("[data-setting=theme]");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
}

function showTheme() {
  themeButton.setAttribute("aria-pressed", String(isDark()));
  redraw();
}

const theme = remembered("theme");
if (theme === "dark" || theme === "light") root.dataset.theme = theme;
themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  remembered("theme", root.dataset.theme);
  showTheme();
});
prefersDark.addEventListener("change", showTheme);

const pick = document.querySelector("[data-setting=pick]");
pick.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  press(pick, button);
  root.dataset.pick = button.dataset.value;
});

const contents = document.querySelector("nav details");
const isWide = matchMedia("(min-width: 70rem)");
contents.open = isWide.matches;
isWide.addEventListener("change", () => { contents.open = isWide.matches; });

// Paper has no dark side and another width, and everything on it must have been drawn.
const PRINTED = 660;
addEventListener("beforeprint", () => {
  for (const node of document.querySelectorAll(".plot")) drawOnce(node);
  for (const details of document.querySelectorAll("main details:not([open])")) {
    details.dataset.closed = "";
    details.open = true;
  }
  root.dataset.before = root.dataset.theme ?? "";
  root.dataset.theme = "light";
  for (const figure of figures.values()) {
    figure.draw();
    Plotly.relayout(figure.canvas, { width: PRINTED, height: 320 });
  }
});
addEventListener("afterprint", () => {
  if (root.dataset.before) root.dataset.theme = root.dataset.before;
  else delete root.dataset.theme;
  delete root.dataset.before;
  for (const details of document.querySelectorAll("details[data-closed]")) {
    delete details.dataset.closed;
    details.open = false;
  }
  for (const figure of figures.values()) figure.draw();
});

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watcher.unobserve(entry.target);
    drawOnce(entry.target);
  }
}, { rootMargin: "600px" });
for (const node of document.querySelectorAll(".plot")) watcher.observe(node);
showTheme();
