// What is dear to compute is computed once.

const KEPT = 100;

/** The function f, which remembers its latest results by its arguments, as JSON writes them. */
export function memo(f) {
  const known = new Map();
  return (...values) => {
    const key = JSON.stringify(values);
    if (!known.has(key)) {
      if (known.size === KEPT) known.delete(known.keys().next().value);
      known.set(key, f(...values));
    }
    return known.get(key);
  };
}
