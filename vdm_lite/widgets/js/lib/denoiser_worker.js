// The shipped denoiser in ONNX Runtime, on a thread of its own so that the page stays quick.

let ort;
let session;

addEventListener("message", async ({ data }) => {
  const { id, folder } = data;
  try {
    postMessage({ id, eps: folder ? await loadAll(folder) : await predict(data) });
  } catch (error) {
    postMessage({ id, problem: error.message });
  }
});

/** Load what the folder's list names, and say how far it is. */
async function loadAll(folder) {
  const list = await (await get(folder, "denoiser.json")).json();
  if (list.missing) throw new Error(list.missing);
  let loaded = 0;
  const count = (bytes) =>
    postMessage({ share: Math.min(1, (loaded += bytes) / list.bytes), bytes: list.bytes });
  count(0);
  const [runtime, weights] = await Promise.all(
    [list.runtime, list.weights].map(async (name) => read(await get(folder, name), count)),
  );
  ort = await import(new URL(list.script, folder));
  Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: await unpacked(runtime) });
  session = await ort.InferenceSession.create(weights, { executionProviders: ["wasm"] });
}

async function get(folder, name) {
  const response = await fetch(new URL(name, folder));
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

/** The whole body; `count` is told of each piece. */
async function read(response, count) {
  const pieces = [];
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(pieces).arrayBuffer());
    pieces.push(value);
    count(value.length);
  }
}

/** Undo gzip, which some servers have undone on the way. */
async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function predict({ z, side, logsnr }) {
  const feeds = {
    z: new ort.Tensor("float32", Float32Array.from(z), [1, 1, side, side]),
    logsnr: new ort.Tensor("float32", Float32Array.of(logsnr), [1]),
  };
  const { y } = await session.run(feeds);
  return y.data;
}
