// Interactive views. The picture of a figure stays until the reader asks for its view: then Plotly is loaded, once,
// and draws the lines that the page carries as JSON. A slider reads the values, also without a pointer.
const here = document.currentScript.src;
let plotly;

function load() {
  plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("plotly/plotly-basic.min.js", here);
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("the script of the views is missing"));
    document.head.append(script);
  });
  return plotly;
}

function show(value) {
  if (value === null || value === undefined) return "none";
  const short = Number(value.toPrecision(4));
  return short !== 0 && Math.abs(short) < 1e-3 ? short.toExponential() : String(short);
}
const axisId = (axis, p) => (p ? `${axis}${p + 1}` : axis); // Plotly calls the first ones x and y
const inkOf = (element) => getComputedStyle(element).color;

function traces(spec) {
  return spec.panels.flatMap((panel, p) =>
    panel.lines.map((line) => ({
      type: "scatter",
      mode: line.width && !line.dots ? "lines" : line.width ? "lines+markers" : "markers",
      x: line.x,
      y: line.y,
      name: line.name,
      showlegend: line.legend,
      legendgroup: line.name,
      xaxis: axisId("x", p),
      yaxis: axisId("y", p),
      line: { color: line.color, width: line.width, dash: line.dashed ? "dash" : "solid" },
      marker: { color: line.color, size: 5, line: { width: 0 } },
      opacity: line.still ? 0.8 : 1,
      hoverinfo: line.still && !line.name ? "skip" : undefined,
      hovertemplate: line.still && !line.name ? undefined
        : `${line.name}: ${spec.slider === "trail" ? "%{x:.4~g}, " : ""}%{y:.4~g}<extra></extra>`,
    })),
  );
}

function layout(spec, element) {
  const ink = inkOf(element);
  const many = spec.slider === "cursor";
  const names = spec.panels.flatMap((panel) => panel.lines).filter((line) => line.legend).map((line) => line.name);
  const wide = names.reduce((sum, name) => sum + 50 + 7 * name.length, 0);
  const legendRows = Math.ceil(wide / Math.max(element.clientWidth - 40, 200));
  const found = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: 12, family: getComputedStyle(element).fontFamily },
    margin: { l: 10, r: 10, t: 22 + 20 * legendRows, b: 10 },
    hovermode: many ? "x unified" : "closest",
    hoverlabel: { bgcolor: getComputedStyle(document.body).backgroundColor, font: { color: ink } },
    legend: { orientation: "h", x: 0, yref: "container", y: 1, yanchor: "top", bgcolor: "rgba(0,0,0,0)" },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    shapes: [],
    annotations: [],
  };
  spec.panels.forEach((panel, p) => {
    const [left, right, low, high] = panel.box;
    for (const [axis, domain, other] of [["x", [left, right], "y"], ["y", [low, high], "x"]]) {
      const { label, log, range, ticks } = panel[axis];
      found[axisId(`${axis}axis`, p)] = {
        domain, anchor: axisId(other, p), automargin: true,
        type: log ? "log" : "linear", range: log ? range.map(Math.log10) : range,
        title: { text: label, standoff: 6 }, gridcolor: "rgba(128,128,128,0.25)", zeroline: false,
        linecolor: ink, showticklabels: ticks, ticks: ticks ? "outside" : "", tickcolor: ink, nticks: 6, exponentformat: "power",
        matches: axis === "x" && many && p > 0 && sameColumn(spec, p) ? "x" : undefined,
      };
    }
    for (const [from, to] of panel.spans) {
      found.shapes.push({
        type: "rect", xref: axisId("x", p), yref: `${axisId("y", p)} domain`, x0: from, x1: to, y0: 0, y1: 1,
        fillcolor: "rgba(128,128,128,0.25)", line: { width: 0 }, layer: "below",
      });
    }
    if (panel.title) {
      found.annotations.push({
        text: panel.title, xref: "paper", yref: "paper", x: left, y: high, xanchor: "left", yanchor: "bottom",
        showarrow: false, font: { size: 13, color: ink },
      });
    }
  });
  return found;
}

const sameColumn = (spec, p) => spec.panels[p].box[0] === spec.panels[0].box[0];

// What the slider does: places (how many there are), and at(k), which moves the plot and says what it shows.
function cursor(spec, plot) {
  const moving = spec.panels[0].lines.filter((line) => !line.still);
  const xs = moving.reduce((a, b) => (b.x.length > a.length ? b.x : a), []);
  const base = plot.layout.shapes.length ? [...plot.layout.shapes] : [];
  const name = spec.panels.map((panel) => panel.x.label).filter(Boolean).pop() ?? "x";
  return {
    places: xs.length,
    name,
    at(k) {
      const lines = spec.panels.map((panel, p) => ({
        type: "line", xref: axisId("x", p), yref: `${axisId("y", p)} domain`, x0: xs[k], x1: xs[k], y0: 0, y1: 1,
        line: { color: inkOf(plot), width: 1.5, dash: "dot" },
      }));
      window.Plotly.relayout(plot, { shapes: [...base, ...lines] });
      const read = spec.panels.map((panel) => {
        const values = panel.lines.filter((line) => line.name && (!line.still || line.legend)).map((line) => {
          const near = line.x.reduce((best, x, i) => (Math.abs(x - xs[k]) < Math.abs(line.x[best] - xs[k]) ? i : best), 0);
          return line.name === panel.title ? show(line.y[near]) : `${line.name} ${show(line.y[near])}`;
        });
        return `${panel.title || panel.y.label}: ${values.join(", ")}`;
      });
      return `${name} ${show(xs[k])} · ${read.join(" · ")}`;
    },
  };
}

function trail(spec, plot) {
  const lines = spec.panels.flatMap((panel) => panel.lines);
  const runs = lines.map((line, i) => i).filter((i) => !lines[i].still);
  const places = Math.max(...runs.map((i) => lines[i].x.length));
  const axis = spec.panels[0];
  return {
    places,
    name: "step",
    at(k) {
      const cut = (values) => values.slice(0, k + 1);
      const sizes = runs.map((i) => lines[i].x.map((_, j) => (j === Math.min(k, lines[i].x.length - 1) ? 11 : 4)));
      window.Plotly.restyle(
        plot, { x: runs.map((i) => cut(lines[i].x)), y: runs.map((i) => cut(lines[i].y)), "marker.size": sizes }, runs,
      );
      const last = (name) => runs.map((i) => lines[i][name][Math.min(k, lines[i].x.length - 1)]).filter((v) => v !== null);
      const range = (name) => `${show(Math.min(...last(name)))} to ${show(Math.max(...last(name)))}`;
      return `step ${k} · ${runs.length} runs · ${axis.x.label} from ${range("x")} · ${axis.y.label} from ${range("y")}`;
    },
  };
}

function explore(view, figure) {
  const spec = JSON.parse(view.querySelector("script").textContent);
  const picture = figure.querySelector("img");
  const box = document.createElement("div");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "view-button";
  button.textContent = "Explore this figure";
  box.className = "view-box";
  box.append(button);
  figure.querySelector("figcaption").before(box);
  let panel; // made when the view is opened first

  async function open() {
    button.disabled = true;
    try {
      await load();
    } catch (error) {
      button.textContent = `Not available: ${error.message}`;
      return;
    }
    button.disabled = false;
    panel = document.createElement("div");
    panel.className = "view-panel";
    const plot = document.createElement("div");
    plot.className = "view-plot";
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", spec.title);
    const rows = new Set(spec.panels.map((one) => one.box[2])).size;
    plot.style.height = `${Math.max(figure.clientWidth * spec.shape, 170 * rows, 320)}px`;
    panel.append(plot);
    box.prepend(panel);
    picture.hidden = true;
    await window.Plotly.newPlot(plot, traces(spec), layout(spec, plot), { displayModeBar: false, responsive: true });
    const move = (spec.slider === "trail" ? trail : cursor)(spec, plot);
    const slider = Object.assign(document.createElement("input"), {
      type: "range", min: 0, max: move.places - 1, value: spec.slider === "trail" ? move.places - 1 : 0, step: 1,
    });
    const label = document.createElement("label");
    const output = document.createElement("output");
    label.append(`${move.name} `, slider);
    panel.append(label, output);
    const moved = () => {
      output.textContent = move.at(Number(slider.value));
      slider.setAttribute("aria-valuetext", output.textContent);
    };
    slider.addEventListener("input", moved);
    new MutationObserver(() => {
      const { font, hoverlabel, ...axes } = layout(spec, plot);
      const shades = { font, hoverlabel, annotations: axes.annotations };
      window.Plotly.relayout(plot, shades).then(moved);
    }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    moved();
  }

  button.addEventListener("click", async () => {
    const closed = panel === undefined || panel.hidden;
    if (panel === undefined) await open();
    if (panel === undefined) return;
    panel.hidden = !closed;
    picture.hidden = closed;
    button.textContent = closed ? "Show the picture" : "Explore this figure";
    button.setAttribute("aria-expanded", String(closed));
  });
  button.setAttribute("aria-expanded", "false");
}

document.addEventListener("DOMContentLoaded", () => {
  for (const view of document.querySelectorAll(".view[data-of]")) {
    const figure = document.getElementById(view.dataset.of)?.closest("figure");
    if (figure) explore(view, figure);
  }
});
