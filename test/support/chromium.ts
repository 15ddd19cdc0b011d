import { chromium, type Browser } from 'playwright-core'
import type { Test } from 'tap'
import { find } from './tools.js'

const executablePath = find('chromium')

// What calls home at every start, and is not there for long enough to do so.
const quiet = ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic', '--no-first-run']

/** The browser of the machine, without a window; closed with the test. */
export async function launch (t: Test): Promise<Browser> {
  // Its sandbox does not work for root, as whom containers run it; it sees nothing but our pages.
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', ...quiet] })
  t.teardown(() => browser.close())
  return browser
}
