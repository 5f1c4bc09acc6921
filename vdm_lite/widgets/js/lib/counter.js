// Random numbers as vdm_lite.counter draws them: Threefry-2x32 of a key (seed, call) and an index.

const ROTATIONS = [
  [13, 15, 26, 6],
  [17, 29, 16, 24],
];

/** Encrypt a pair of 32-bit words under a key of two: [first, second], each 0 … 2^32 - 1. */
export function threefry([key0, key1], [counter0, counter1]) {
  const keys = [key0, key1, 0x1bd11bda ^ key0 ^ key1];
  let [x, y] = [(counter0 + key0) | 0, (counter1 + key1) | 0];
  for (let block = 0; block < 5; block++) {
    for (const rotation of ROTATIONS[block % 2]) {
      x = (x + y) | 0;
      y = ((y << rotation) | (y >>> (32 - rotation))) ^ x;
    }
    x = (x + keys[(block + 1) % 3]) | 0;
    y = (y + keys[(block + 2) % 3] + block + 1) | 0;
  }
  return [x >>> 0, y >>> 0];
}

/** Number `index` (below 2^32) of N(0, 1) in call `call`. */
export function normal(seed, call, index) {
  const [x, y] = threefry([seed, call], [index, 0]);
  return Math.sqrt(-2 * Math.log((x + 0.5) / 2 ** 32)) * Math.cos(2 * Math.PI * (y / 2 ** 32));
}

/** The first `count` of these numbers. */
export function normals(seed, call, count) {
  return Array.from({ length: count }, (_, index) => normal(seed, call, index));
}

/** The first `count` numbers from [0, 1) in call `call`. */
export function uniforms(seed, call, count) {
  return Array.from({ length: count }, (_, index) => {
    const [x, y] = threefry([seed, call], [index, 0]);
    return (x * 2 ** 21 + (y >>> 11)) / 2 ** 53;
  });
}

/** A source whose every call {uniforms(count), normals(count)} takes the next number of a call. */
export function source(seed) {
  let call = 0;
  return {
    uniforms: (count) => uniforms(seed, call++, count),
    normals: (count) => normals(seed, call++, count),
  };
}
