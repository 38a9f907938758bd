// `tproxy SCRIPT.py` the classic way: which program runs the script, and where our Python runner is.

import Config
import Glibc

/// The script argument: a Python file, a module, or `module:object`. An existing file wins.
struct ClassicScript {
    /// As people wrote it.
    let text: String

    init(_ text: String) { self.text = text }

    /// The script's name without its folder.
    var name: String {
        text.split(separator: "/").last.map(String.init) ?? text
    }

    /// The command that runs it: Python, our runner by its path (so that a local `tproxy` cannot shadow it), the script.
    func router(environment: [String: String]) throws(OptionError) -> RouterSpec {
        switch Self.kind(of: text) {
        case .file where text.hasSuffix(".py"): break
        case .file: throw refused("it is not a Python script; for another program: --router '\(interpreter)\(quoted)'")
        case .other: throw refused("it is not a regular file")
        case .folder where text.contains("/"): throw refused("it is a folder")
        case .folder, .nothing:
            guard Self.isModule(text) else { throw refused("no such file, and no name of a Python module") }
            // `route.py` would be the object `py` of a package `route`: nobody means that.
            guard !text.hasSuffix(".py") else { throw refused("no such file") }
        }
        guard let runner = Self.runner() else {
            throw refused(
                "the Python runner is missing: no routers/python/tproxy/runner.py and no "
                    + "share/tproxy/python/tproxy/runner.py above \(Self.executable() ?? "the program")")
        }
        let python = environment["TPROXY_PYTHON"].flatMap { $0.isEmpty ? nil : $0 } ?? "python3"
        return RouterSpec(arguments: [python, runner, text], text: text)
    }

    private func refused(_ reason: String) -> OptionError {
        OptionError(option: "SCRIPT", value: text, reason: reason)
    }

    /// What would run another kind of file, by the end of its name; nothing for a program of its own.
    private var interpreter: String {
        let known = [
            "js": "node", "mjs": "node", "cjs": "node", "rb": "ruby", "sh": "sh", "pl": "perl", "lua": "lua",
            "php": "php",
            "go": "go run", "jq": "jq -c --unbuffered -f",
        ]
        guard let dot = name.lastIndex(of: "."), let program = known[String(name[name.index(after: dot)...])]
        else { return "" }
        return program + " "
    }

    /// The file as a word of that command; a program in the current folder needs its `./`.
    private var quoted: String {
        ShellWords.join([interpreter.isEmpty && !text.contains("/") ? "./" + text : text])
    }

    private enum Kind { case file, folder, other, nothing }

    private static func kind(of path: String) -> Kind {
        var status = stat()
        guard stat(path, &status) == 0 else { return .nothing }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return .file
        case S_IFDIR: return .folder
        default: return .other
        }
    }

    /// Whether this is `module`, `package.module` or `module:object`. Python's names may have letters of any language.
    private static func isModule(_ text: String) -> Bool {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count <= 2 else { return false }
        return parts.allSatisfy { part in
            part.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { name in
                guard let first = name.unicodeScalars.first else { return false }
                return (first == "_" || first.properties.isXIDStart)
                    && name.unicodeScalars.allSatisfy { $0 == "_" || $0.properties.isXIDContinue }
            }
        }
    }

    /// The runner of a checkout (`routers/python`) or of an installation (`share/tproxy`), whichever comes first on the
    /// way up from the executable.
    private static func runner() -> String? {
        guard var folder = executable() else { return nil }
        while let slash = folder.lastIndex(of: "/") {
            folder = String(folder[..<slash])
            for path in ["routers/python/tproxy/runner.py", "share/tproxy/python/tproxy/runner.py"]
            where kind(of: "\(folder)/\(path)") == .file {
                return "\(folder)/\(path)"
            }
        }
        return nil
    }

    /// This program's path with every link resolved.
    private static func executable() -> String? {
        guard let path = realpath("/proc/self/exe", nil) else { return nil }
        defer { free(path) }
        return String(cString: path)
    }
}
