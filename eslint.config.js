import neostandard from 'neostandard'

export default [
  { ignores: ['dist', '.tap', 'node_modules'] },
  ...neostandard({ ts: true }),
  { rules: { '@typescript-eslint/no-explicit-any': 'error', 'max-lines': ['error', 400] } }
]
