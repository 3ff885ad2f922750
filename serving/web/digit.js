// From a picture of a digit to what the model was trained on: the same steps as serving/client/pictures.py,
// which explains them. A test holds the two together.

const BOX_SHARE = 20 / 28;
const THINNEST = 0.9, STROKE = 2.0;
const FAINT = 8;
const NOISE_QUANTILE = 0.95, NOISE_MARGIN = 2.5, MAX_NOISE = 0.4;
const TRACE = 0.08, TRIM = 0.002;

export class BlankError extends Error {}

/**
 * Find the digit, make it light on black, scale it and centre it.
 * @param {number[][]} grey rows of grey levels 0 … 255
 * @param {number} height of the field, in pixels
 * @param {number} width of the field, in pixels
 * @returns {number[][]} rows of integers 0 … 255
 * @throws {BlankError} where there is nothing to be seen
 */
export function normalise(grey, height, width) {
  const [ink, noisy] = inkOf(grey);
  const trim = noisy ? TRIM : 0;
  const [top, bottom] = extent(ink, trim);
  const [left, right] = extent(transposed(ink), trim);
  let digit = ink.slice(top, bottom).map((row) => row.slice(left, right));
  const scale = Math.min(height, width) * BOX_SHARE / Math.max(digit.length, digit[0].length);
  digit = thickened(digit, scale);
  const small = transposed(resampled(transposed(resampled(digit, scale)), scale));
  const peak = maximum(small);
  return centred(small.map((row) => row.map((value) => roundHalfToEven(value * (255 / peak)))), height, width);
}

function inkOf(grey) {
  const ground = quantile(frameOf(grey), 0.5);
  let lighter = 0, darker = 0;
  for (const row of grey) {
    for (const value of row) {
      if (value > ground) lighter += value - ground;
      else darker += ground - value;
    }
  }
  const sign = lighter >= darker ? 1 : -1;
  const ink = grey.map((row) => row.map((value) => Math.max(0, sign * (value - ground))));
  const peak = maximum(ink);
  if (peak < FAINT) throw new BlankError("Nothing to be seen.");
  const noise = Math.min(NOISE_MARGIN * quantile(frameOf(ink), NOISE_QUANTILE), MAX_NOISE * peak);
  return [ink.map((row) => row.map((value) => Math.max(0, value - noise) / (peak - noise))), noise > 0];
}

function frameOf(rows) {
  const inner = rows.slice(1, -1);
  return [rows[0], rows.at(-1), inner.map((row) => row[0]), inner.map((row) => row.at(-1))].flat();
}

function quantile(values, share) {
  return Float64Array.from(values).sort()[Math.floor(share * (values.length - 1))];
}

function extent(rows, trim) {
  const masses = rows.map(sum);
  const total = sum(masses);
  let before = 0, first = -1, last = -1;
  rows.forEach((row, at) => {
    const mass = masses[at] / total;
    if (maximum([row]) > TRACE && before + mass > trim && before < 1 - trim) {
      if (first < 0) first = at;
      last = at;
    }
    before += mass;
  });
  return [first, last + 1];
}

function thickened(digit, scale) {
  const inside = (y, x) => (digit[y]?.[x] ?? 0) > 0.5;
  let area = 0, edges = 0;
  for (let y = 0; y <= digit.length; y++) {
    for (let x = 0; x <= digit[0].length; x++) {
      area += inside(y, x);
      edges += (inside(y, x) !== inside(y - 1, x)) + (inside(y, x) !== inside(y, x - 1));
    }
  }
  const stroke = 2 * area / (edges * Math.PI / 4);
  if (stroke * scale >= THINNEST) return digit;
  const radius = Math.ceil((STROKE / scale - stroke) / 2);
  return transposed(spread(transposed(spread(digit, radius)), radius));
}

function spread(rows, radius) {
  const blank = () => Array.from({ length: radius }, () => new Array(rows[0].length).fill(0));
  let padded = [...blank(), ...rows, ...blank()];
  for (let window = 1; window < 2 * radius + 1;) {
    const step = Math.min(window, 2 * radius + 1 - window);
    padded = padded.slice(step).map((row, at) => row.map((value, x) => Math.max(value, padded[at][x])));
    window += step;
  }
  return padded;
}

function resampled(rows, scale) {
  const size = Math.max(1, roundHalfToEven(rows.length * scale));
  const step = rows.length / size;
  return Array.from({ length: size }, (_, at) => {
    const begin = at * step, end = begin + step;
    const mean = new Array(rows[0].length).fill(0);
    for (let source = Math.floor(begin); source < Math.min(Math.ceil(end), rows.length); source++) {
      const covered = (Math.min(end, source + 1) - Math.max(begin, source)) / step;
      rows[source].forEach((value, x) => { mean[x] += covered * value; });
    }
    return mean;
  });
}

function centred(digit, height, width) {
  const top = offset(digit.map(sum), height);
  const left = offset(transposed(digit).map(sum), width);
  return Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => digit[y - top]?.[x - left] ?? 0));
}

function offset(profile, size) {
  const centre = sum(profile.map((value, at) => value * at)) / sum(profile);
  return Math.floor(size / 2 - centre + 0.5);
}

// As Python and NumPy round.
function roundHalfToEven(value) {
  const below = Math.floor(value), rest = value - below;
  return below + (rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? 1 : 0);
}

function transposed(rows) {
  return rows[0].map((_, x) => rows.map((row) => row[x]));
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function maximum(rows) {
  return rows.reduce((most, row) => row.reduce((a, b) => Math.max(a, b), most), 0);
}
