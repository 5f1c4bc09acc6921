// The noise schedules of vdm_lite: curves lambda(u) of their own time u, cut to two end points.
import { erfc, ndtri, softplus } from "./numerics.js";

const HALF_PI = Math.PI / 2;

/** The slope of `ndtri` at p, by its value there. */
function quantileSlope(quantile) {
  return Math.sqrt(2 * Math.PI) * Math.exp(0.5 * quantile * quantile);
}

// curve(u, v) is the level at u = 1 - v, slope(u, v, du, dv) its change along (du, dv), and
// inverse(logsnr) the pair [u, v] of a level. u and v apart, so that neither end loses digits.
const CURVES = {
  cosine: {
    curve: (u, v) => 2 * (Math.log(Math.sin(HALF_PI * v)) - Math.log(Math.sin(HALF_PI * u))),
    slope: (u, v, du, dv) =>
      2 * HALF_PI * (dv / Math.tan(HALF_PI * v) - du / Math.tan(HALF_PI * u)),
    inverse: (logsnr) => [
      Math.atan(Math.exp(-logsnr / 2)) / HALF_PI,
      Math.atan(Math.exp(logsnr / 2)) / HALF_PI,
    ],
  },
  "flow-matching": {
    curve: (u, v) => 2 * (Math.log(v) - Math.log(u)),
    slope: (u, v, du, dv) => 2 * (dv / v - du / u),
    inverse: (logsnr) => [1 / (1 + Math.exp(logsnr / 2)), 1 / (1 + Math.exp(-logsnr / 2))],
  },
  edm: normalCurve(2.4, 2.4),
  "logit-normal": normalCurve(0, 2),
  "beta-linear": {
    curve: (u) => -Math.log(Math.expm1(0.1 * u + 9.95 * u * u)),
    slope: (u, v, du) => ((0.1 + 19.9 * u) * du) / Math.expm1(-(0.1 * u + 9.95 * u * u)),
    inverse: (logsnr) => {
      const integral = softplus(-logsnr);
      const u = (2 * integral) / (0.1 + Math.sqrt(0.01 + 4 * 9.95 * integral));
      return [u, 1 - u];
    },
  },
};

/** Levels with a normal density: the log-normal of EDM, the logit-normal of the straight path. */
function normalCurve(mean, std) {
  return {
    curve: (u, v) => mean + std * (u < v ? -ndtri(u) : ndtri(v)),
    slope: (u, v, du, dv) =>
      std * (u < v ? -quantileSlope(ndtri(u)) * du : quantileSlope(ndtri(v)) * dv),
    inverse: (logsnr) => {
      const deviation = (logsnr - mean) / std / Math.SQRT2;
      return [erfc(deviation) / 2, erfc(-deviation) / 2];
    },
  };
}

/** A straight line between the ends: uniform density over noise levels. */
function linearCurve(high, low) {
  return {
    curve: (u, v) => v * high + u * low,
    slope: (u, v, du, dv) => dv * high + du * low,
    inverse: (logsnr) => {
      const u = (high - logsnr) / (high - low);
      return [u, 1 - u];
    },
  };
}

export const SCHEDULES = [
  "linear",
  "cosine",
  "flow-matching",
  "edm",
  "logit-normal",
  "beta-linear",
];

/**
 * A schedule from logsnrMax at t = 0 to logsnrMin at t = 1, by its name: {logsnr(t), slope(t),
 * timeOf(logsnr), density(logsnr), ends}. The density is -dt/dlogsnr, and 0 beyond the ends.
 */
export function makeSchedule(name, logsnrMax, logsnrMin) {
  const { curve, slope, inverse } = CURVES[name] ?? linearCurve(logsnrMax, logsnrMin);
  const [u0, v0] = inverse(logsnrMax);
  const [u1, v1] = inverse(logsnrMin);
  const place = (t) => [(1 - t) * u0 + t * u1, (1 - t) * v0 + t * v1];
  return scheduleOf({
    ends: [logsnrMax, logsnrMin],
    logsnr: (t) => curve(...place(t)),
    slope: (t) => slope(...place(t), u1 - u0, v1 - v0),
    timeOf: (logsnr) => {
      const [u, v] = inverse(logsnr);
      return u < v ? (u - u0) / (u1 - u0) : 1 - (v - v1) / (v0 - v1);
    },
  });
}

/** A schedule {logsnr, slope, timeOf, ends} with its density over noise levels. */
export function scheduleOf(schedule) {
  const {
    ends: [high, low],
    slope,
    timeOf,
  } = schedule;
  const slack = 1e-6 * (high - low);
  const density = (logsnr) => {
    if (logsnr < low - slack || logsnr > high + slack) return 0;
    return -1 / slope(timeOf(Math.min(high, Math.max(low, logsnr))));
  };
  return { ...schedule, density };
}
