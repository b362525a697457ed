// Colours and shapes. Risk runs from blue over grey to orange, which people with any colour blindness tell apart; what a
// colour says is also said by a rim, a shape or the panel.

export const THEMES = {
  light: {
    ground: "#ffffff", ink: "#1b1f24", muted: "#59636e", tie: "#8a949e", rim: "#ffffff", fraud: "#14171a",
    glow: "#ffc400", picked: "#0a58ca", risk: ["#4a7fbf", "#c9c5bb", "#e66100"],
  },
  dark: {
    ground: "#12161b", ink: "#e9edf1", muted: "#9aa5b1", tie: "#6f7a86", rim: "#12161b", fraud: "#ffffff",
    glow: "#ffd84d", picked: "#7db4ff", risk: ["#5e9be0", "#77797d", "#ff8a2b"],
  },
};

export const SHAPES = {
  account: "circle", device: "square", merchant: "diamond", card: "rectangle", ip: "triangle", location: "hexagon",
};
export const shapeOf = (role) => SHAPES[role] ?? "hexagon";

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** The colour of a risk, 0 to 1. */
export function riskColour(risk, theme) {
  const at = Math.min(1, Math.max(0, risk)) * 2;
  const [from, to] = at < 1 ? [theme.risk[0], theme.risk[1]] : [theme.risk[1], theme.risk[2]];
  const share = at < 1 ? at : at - 1;
  const a = channels(from);
  const b = channels(to);
  const mixed = a.map((value, i) => Math.round(value + (b[i] - value) * share).toString(16).padStart(2, "0"));
  return `#${mixed.join("")}`;
}

/** The outline of a shape of radius r around (0, 0), as the path of an SVG. */
export function outline(shape, r) {
  const f = (v) => v.toFixed(2);
  const polygon = (points) => `M${points.map(([x, y]) => `${f(x * r)},${f(y * r)}`).join("L")}Z`;
  switch (shape) {
    case "square": return polygon([[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]]);
    case "diamond": return polygon([[0, -1.1], [1.1, 0], [0, 1.1], [-1.1, 0]]);
    case "rectangle": return polygon([[-1.1, -0.65], [1.1, -0.65], [1.1, 0.65], [-1.1, 0.65]]);
    case "triangle": return polygon([[0, -1.1], [1, 0.7], [-1, 0.7]]);
    case "hexagon": return polygon([[1, 0], [0.5, 0.87], [-0.5, 0.87], [-1, 0], [-0.5, -0.87], [0.5, -0.87]]);
    default: return `M${f(r)},0A${f(r)},${f(r)} 0 1 1 ${f(-r)},0A${f(r)},${f(r)} 0 1 1 ${f(r)},0Z`;
  }
}
