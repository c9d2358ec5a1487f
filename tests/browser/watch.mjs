// What is watched on every page, and how it is looked at.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RULES = { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], resultTypes: ['violations'] };

export const DESKTOP = { width: 1200, height: 800 };
export const PHONE = { width: 390, height: 844 };

/** Fails the story with everything that is wrong, once it is over. */
export class Watch {
  constructor(base) {
    this.base = base;
    this.wrong = [];
    this.expected = [];
    this.strangers = [];
    this.pages = [];
  }

  note(text) {
    this.wrong.push(text);
  }

  /** The next page answers with this status, which Chromium writes to the console as an error. */
  expect(status) {
    this.expected.push(status);
  }

  /** An origin that the story itself plays. */
  allow(origin) {
    this.strangers.push(origin);
  }

  over(context) {
    context.on('weberror', (error) => this.note(`exception: ${error.error().message}`));
    context.on('console', (message) => {
      if (!['error', 'warning'].includes(message.type())) return;
      const at = this.expected.findIndex((status) => message.text().includes(`status of ${status}`));
      if (at >= 0) this.expected.splice(at, 1);
      else this.note(`console: ${message.text()} (${message.location().url})`);
    });
    context.on('request', (request) => {
      const url = new URL(request.url());
      if (url.hostname !== '127.0.0.1' && !this.strangers.includes(url.origin)) this.note(`a request to ${url.origin}`);
    });
    context.on('response', (response) => {
      if (new URL(response.url()).origin === this.base && !new URL(response.url()).pathname.startsWith('/static/')) this.pages.push(this.seen(response));
    });
    context.on('requestfailed', (request) => {
      const url = new URL(request.url());
      // The icon comes last: Chromium gives up on it when a person is quicker. That the house has it, is asked elsewhere.
      if (url.href === `${this.base}/static/favicon.svg` && request.failure()?.errorText === 'net::ERR_ABORTED') return;
      if (!this.strangers.includes(url.origin)) this.note(`failed: ${request.method()} ${url.origin}${url.pathname} ${request.failure()?.errorText}`);
    });
  }

  /** Accessibility and layout of a page of the house as it is shown now. */
  async look(page, where = new URL(page.url()).pathname) {
    const sideways = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (sideways > 0) this.note(`${where}: ${sideways} px stick out sideways`);
    await page.evaluate(axe);
    const { violations } = await page.evaluate((rules) => globalThis.axe.run(document, rules), RULES);
    for (const one of violations) {
      this.note(`${where}: ${one.id} (${one.help}): ${one.nodes.map((node) => `${node.target.join(' ')} ${node.any[0]?.message ?? ''}`).join(' | ')}`);
    }
  }

  /** What the house said; a redirect, and a page that is gone already, has no text. */
  async seen(response) {
    const { pathname } = new URL(response.url());
    const [headers, text] = await Promise.all([response.allHeaders().catch(() => response.headers()), response.text().catch(() => '')]);
    return { method: response.request().method(), path: pathname, headers, text };
  }

  /** Everything that the house said, for the search for secrets. */
  everything() {
    return Promise.all(this.pages);
  }

  finish() {
    if (this.wrong.length > 0) throw new Error(`what was seen on the way:\n  ${this.wrong.join('\n  ')}`);
  }
}
