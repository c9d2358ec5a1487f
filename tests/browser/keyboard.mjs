// The whole way of `whole` without a pointer: Tab, letters, space and Enter.

/** The furthest that anything is from the top of a page, in presses of Tab. */
const FURTHEST = 60;

function hands({ watch, page }) {
  /** Presses Tab until `wanted` has the focus. Every stop on the way has to show itself, inside the window. */
  const reach = async (wanted) => {
    await wanted.waitFor();
    for (let stops = 0; stops < FURTHEST; stops += 1) {
      await page.keyboard.press('Tab');
      const stop = await page.evaluate(() => {
        const one = document.activeElement;
        if (!one || one === document.body) return null;
        const [style, box] = [getComputedStyle(one), one.getBoundingClientRect()];
        return {
          name: (one.innerText || one.getAttribute('aria-label') || one.name || one.tagName).trim().slice(0, 40),
          ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
          inside: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
        };
      });
      const where = new URL(page.url()).pathname;
      if (stop && !stop.ring) watch.note(`${where}: nothing shows that "${stop.name}" has the focus`);
      if (stop && !stop.inside) watch.note(`${where}: "${stop.name}" has the focus where nobody sees it`);
      if (await wanted.evaluate((one) => one === document.activeElement)) return;
    }
    throw new Error(`the keyboard does not reach ${wanted}`);
  };
  const press = async (wanted, key = 'Enter') => {
    await reach(wanted);
    await page.keyboard.press(key);
  };
  const write = async (wanted, text) => {
    await reach(wanted);
    await page.keyboard.press('Control+A');
    await page.keyboard.type(text);
  };
  return { press, reach, write };
}

/** Signs in, connects Google, names the account, disconnects, and signs out. */
export async function keyboard({ given, watch, somebody, keep, consent }) {
  const page = keep(await (await somebody()).newPage());
  const { press, reach, write } = hands({ watch, page });
  const arrive = (name) => page.getByRole('heading', { level: 1, name }).waitFor();
  const button = (name) => page.getByRole('button', { name });

  await page.goto(`${given.base}/`);
  await arrive('Sign in');
  await write(page.getByLabel('E-mail address'), given.email);
  await write(page.getByLabel('Password'), given.password);
  await page.keyboard.press('Enter');

  await arrive('Connections');
  // Whoever comes by keyboard can pass the menu.
  await press(page.locator('a.skip'));
  if (!await page.evaluate(() => document.activeElement?.id === 'main')) throw new Error('the first link does not lead past the menu');
  await press(button('Connect Google'));
  await arrive('Connect Google');
  await press(button('Continue to Google'));
  // The provider's page is not ours.
  await consent(page, given.account, 'Allow');
  await page.locator('.result').getByText(given.account).first().waitFor();
  await press(page.getByRole('link', { name: 'To your connections' }));

  await arrive('Connections');
  await press(page.locator('summary').first());
  await page.locator('details[open]').first().waitFor();
  await press(page.getByRole('link', { name: `Details of ${given.account}` }));
  await arrive(given.account);
  await press(button('Disconnect'));
  await arrive('Disconnect this account?');
  // The way back is right beside it.
  await reach(page.getByRole('link', { name: 'Keep it' }));
  await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Enter');
  await arrive('Connections');
  await page.getByRole('heading', { name: 'No keys on the board yet' }).waitFor();

  await press(page.getByRole('link', { name: 'Settings' }));
  await arrive('Settings');
  await press(button('Sign out'));
  await arrive('Sign in');
}
