// TF Serving's REST API, as far as the page needs it.

export class Model {
  /** @param {string} name of the model on the server that the page came from */
  constructor(name) {
    this.path = `v1/models/${encodeURIComponent(name)}`;
  }

  /** Ask which version serves and what it takes. */
  async refresh() {
    const { model_spec: spec, metadata } = await request(`${this.path}/metadata`);
    const signatures = metadata.signature_def.signature_def;
    if (!signatures.decode || !signatures.pixels) {
      throw new Error("This model does not say what it gets of a picture: it has no signatures decode and pixels.");
    }
    const [, height, width, channels] = signatures.pixels.inputs.image.tensor_shape.dim.map(({ size }) => Number(size));
    Object.assign(this, { version: spec.version, height, width, channels: channels ?? 1 });
  }

  /**
   * Ask what the network gets of a picture file.
   * @param {Blob} file
   * @returns {{image: number[][], names: string[]}} rows of pixels, and the names of all classes
   */
  async decode(file) {
    const { row } = await this.ask("decode", { b64: await base64(file) });
    return row;
  }

  /**
   * Ask for the probabilities of one image.
   * @param {number[][]} image
   * @returns {{probabilities: number[], version: string, milliseconds: number}}
   */
  async predict(image) {
    const began = performance.now();
    const { row: { probabilities }, version } = await this.ask("pixels", { image });
    return { probabilities, version, milliseconds: performance.now() - began };
  }

  async ask(signature, instance) {
    for (let again = false; ; again = true) {
      // By number, so that the version shown is the one that answered.
      const version = this.version;
      try {
        const { predictions: [row] } = await request(`${this.path}/versions/${version}:predict`, {
          signature_name: signature,
          instances: [instance],
        });
        return { row, version };
      } catch (error) {
        if (error.status !== 404 || again) throw error;
        await this.refresh(); // a newer version has taken its place
      }
    }
  }
}

async function base64(file) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1);
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
