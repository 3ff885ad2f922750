// TF Serving's REST API, as far as the page needs it.

export class Model {
  /** @param {string} name of the model on the server that the page came from */
  constructor(name) {
    this.path = `v1/models/${encodeURIComponent(name)}`;
  }

  /** Ask which version serves and what it takes. */
  async refresh() {
    const { model_spec: spec, metadata } = await request(`${this.path}/metadata`);
    const signature = metadata.signature_def.signature_def.pixels;
    if (!signature?.inputs.image) throw new Error("This model takes no arrays of pixels.");
    const [, height, width] = signature.inputs.image.tensor_shape.dim.map(({ size }) => Number(size));
    this.version = spec.version;
    this.height = height;
    this.width = width;
  }

  /**
   * Ask for the probabilities of one image.
   * @param {number[][]} image
   * @returns {{probabilities: number[], version: string, milliseconds: number}}
   */
  async predict(image) {
    for (let again = false; ; again = true) {
      // By number, so that the version shown is the one that answered.
      const version = this.version;
      const began = performance.now();
      try {
        const { predictions: [{ probabilities }] } = await request(`${this.path}/versions/${version}:predict`, {
          signature_name: "pixels",
          instances: [{ image }],
        });
        return { probabilities, version, milliseconds: performance.now() - began };
      } catch (error) {
        if (error.status !== 404 || again) throw error;
        await this.refresh(); // a newer version has taken its place
      }
    }
  }
}

async function request(path, body) {
  let response;
  try {
    response = await fetch(path, body && { method: "POST", body: JSON.stringify(body) });
  } catch {
    throw new Error("The server does not answer.");
  }
  const answer = await response.json().catch(() => ({ error: `The server answered HTTP ${response.status}.` }));
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}
