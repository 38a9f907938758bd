// `--reload`: what HUP does, whenever a file of the router's command has changed. In the arbiter, where HUP is known already.

import Config
import Glibc
import Linux
import Logging
import Reactor
import SystemPackage

extension Arbiter {
    /// The files that a router's command names: a program or a script by its path, a module by its dots.
    static func files(of arguments: [String]) -> [String] {
        arguments.compactMap { word in
            if isFile(word) { return word }
            // `package.module:object`
            let module = word.prefix { $0 != ":" }
            let path = module.split(separator: ".", omittingEmptySubsequences: false).joined(separator: "/") + ".py"
            return !module.isEmpty && !word.contains("/") && isFile(path) ? path : nil
        }
    }

    private static func isFile(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }

    /// Begins to watch, if it is wanted and there is something to watch.
    mutating func beginWatching() {
        guard settings.reload else { return }
        let commands = [settings.router, settings.canaryRouter, settings.shadowRouter]
        let files = commands.flatMap { Self.files(of: $0?.arguments ?? []) }
        do throws(Errno) {
            let watch = try FileWatch(files)
            guard !watch.isEmpty else { return log.warning("--reload finds no file in the command to watch") }
            try poller.add(watch.raw, .readable, Token(slot: 0, generation: 0, kind: Kind.files.rawValue))
            self.watch = consume watch
        } catch {
            log.warning("--reload cannot watch files: \(error)")
        }
    }

    private var changedFile: String? {
        switch watch {
        case .some(let watch): watch.changed()
        case .none: nil
        }
    }

    /// A file has changed, perhaps: a while after the last one we reload, for editors and copies write several.
    mutating func readChanges() {
        guard let name = changedFile else { return }
        if reloadAt == nil { log.info("\(name) has changed: reloading") }
        reloadAt = Instant.now().advanced(byMilliseconds: Int64(Limits.reloadPauseMilliseconds))
    }

    /// Reloads when it is time.
    mutating func reloadWhenDue() {
        guard let due = reloadAt, due.milliseconds(since: .now()) <= 0 else { return }
        reloadAt = nil
        happen(.signal(.hangUp))
    }
}
