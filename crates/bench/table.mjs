// The table of a run: what we did, what the others did, the ratio, and whether it is what we aim for.

const number = (value) => {
  if (value === undefined) return "none";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
};

export class Table {
  #rows = [];
  #omitted = [];

  /** What could not be measured, and why. It is printed, so that a short table never looks like a whole one. */
  omit(what, why) {
    this.#omitted.push({ what, why });
    console.error(`  left out: ${what} (${why})`);
  }

  /**
   * One measurement of ours. `peers` maps names to `{ value, ratio }`, where a larger ratio is always better for us;
   * `aim` is `[peer, ratio]`; `least` and `most` bound our own value.
   */
  row(what, { ours, unit, peers = {}, aim, least, most }) {
    const aims = [];
    if (aim) aims.push({ text: `≥ ${aim[1]}× ${aim[0]}`, met: peers[aim[0]].ratio >= aim[1] });
    if (least !== undefined) aims.push({ text: `≥ ${number(least)} ${unit}`, met: ours >= least });
    if (most !== undefined) aims.push({ text: `≤ ${number(most)} ${unit}`, met: ours <= most });
    this.#rows.push({ what, ours, unit, peers, aims });
  }

  /** One measurement of several contestants, ours among them or not. `less`: smaller is better. */
  compare(what, values, { unit, less = false, aims: wanted = {}, most } = {}) {
    const { farthing: ours, ...others } = values;
    const peers = {};
    for (const [name, value] of Object.entries(others)) {
      const ratio = less ? value / ours : ours / value;
      peers[name] = { value, ratio: Number.isFinite(ratio) ? ratio : undefined };
    }
    const aims = [];
    if (ours !== undefined) {
      for (const [name, ratio] of Object.entries(wanted)) {
        if (peers[name]?.ratio !== undefined) aims.push({ text: `≥ ${ratio}× ${name}`, met: peers[name].ratio >= ratio });
      }
      if (most !== undefined) aims.push({ text: `≤ ${number(most)} ${unit}`, met: ours <= most });
    }
    this.#rows.push({ what, ours, unit, peers, aims });
  }

  /** Something that holds or does not. */
  fact(what, met) {
    this.#rows.push({ what, peers: {}, aims: [{ text: "holds", met }] });
  }

  data() {
    return { rows: this.#rows, omitted: this.#omitted };
  }

  print() {
    const cells = [["", "farthing", "beside", "ratio", "aim"]];
    for (const { what, ours, unit, peers, aims } of this.#rows) {
      const beside = Object.entries(peers);
      const lines = Math.max(1, beside.length, aims.length);
      for (let i = 0; i < lines; i++) {
        const [name, peer] = beside[i] ?? [];
        const aim = aims[i];
        cells.push([
          i === 0 ? what : "",
          i === 0 && ours !== undefined ? `${number(ours)} ${unit}` : "",
          peer ? `${name} ${number(peer.value)}` : "",
          peer?.ratio === undefined ? "" : `${number(peer.ratio)}×`,
          aim ? `${aim.met ? "met" : "MISSED"} ${aim.text}` : "",
        ]);
      }
    }
    const widths = cells[0].map((_, column) => Math.max(...cells.map((row) => row[column].length)));
    const lines = cells.map((row) => row.map((cell, column) => (column === 0 || column === 4 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]))).join("  ").trimEnd());
    for (const { what, why } of this.#omitted) lines.push(`left out: ${what} (${why})`);
    return lines.join("\n");
  }
}
